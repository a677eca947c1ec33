package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// TestOneMaker at a time, and what a dead one has left is removed by the next, before it needs
// the room.
func TestOneMaker(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(t.Context(), testVM(d)); !errors.Is(err, errdefs.ErrUnavailable) || wanted(s, testVM(d)) {
		t.Errorf("a second maker: %v", err)
	}
	if d.starts.Load() != 0 {
		t.Error("it has started a VM")
	}
	for _, left := range []string{s.path(KeyOf("of a maker that was killed")) + partSuffix, s.path(KeyOf("half removed"))} {
		if err := os.MkdirAll(filepath.Join(left, "vm"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	gone := s.path(KeyOf("removed by who was killed")) + goneSuffix + "123"
	if err := errors.Join(os.Mkdir(gone, 0o700), os.WriteFile(filepath.Join(gone, indexFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	reason := s.path(KeyOf("of an image that was replaced"))
	s.setFailed(KeyOf("of an image that was replaced"), errors.New("not today"))
	long := time.Now().Add(-2 * retryAfter)
	if err := os.Chtimes(reason+failedSuffix, long, long); err != nil {
		t.Fatal(err)
	}
	unlock()
	d.saveErr = errors.New("not today")
	if _, err := s.Make(t.Context(), testVM(d)); err == nil {
		t.Fatal("it was made")
	}
	key, err := testVM(d).Key()
	if diff := cmp.Diff([]string{string(key) + failedSuffix}, files(t, s)); diff != "" || err != nil {
		t.Errorf("left behind (-want +got):\n%s%v", diff, err)
	}
}

// TestLockOfRemovedFile: who has opened the file of the lock before it was removed does not have
// the lock.
func TestLockOfRemovedFile(t *testing.T) {
	s := testStore(t)
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	path := filepath.Join(s.Dir, lockFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := s.lock() // makes another file
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.lock(); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("two have the lock: %v", err)
	}
	again()
}

// TestMakerThatWaits: who asks for a template by hand gets it after the one that is just made.
func TestMakerThatWaits(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	s.Waits = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Make(ctx, testVM(d)); !errors.Is(err, errdefs.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("without time to wait: %v", err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := s.Make(t.Context(), testVM(d)); err != nil {
				t.Error(err)
			}
		})
	}
	if d.starts.Load() != 0 {
		t.Error("a VM was started while another process makes one")
	}
	unlock()
	wg.Wait()
	if got := d.starts.Load(); got != 1 {
		t.Errorf("%d VMs were started, want 1", got)
	}
}

// TestOthersCanWrite: nothing is used that others may have written.
func TestOthersCanWrite(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	key := made(t, s, testVM(d)).Key
	for name, change := range map[string]func() error{
		"mode":  func() error { return os.Chmod(s.Dir, 0o777) },
		"owner": func() error { return errors.Join(os.Chmod(s.Dir, 0o700), os.Chown(s.Dir, 12345, -1)) },
	} {
		if os.Getuid() != 0 {
			t.Skip("needs root, to give a directory away")
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(key); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: it is used: %v", name, err)
		}
		d.facts = name
		if _, err := s.Make(t.Context(), testVM(d)); !errors.Is(err, errdefs.ErrFailedPrecondition) || wanted(s, testVM(d)) {
			t.Errorf("%s: one is made: %v", name, err)
		}
	}
	if err := errors.Join(s.EndMaker(t.Context()), s.RemoveAll()); err != nil {
		t.Errorf("it cannot be removed: %v", err)
	}
}

// makerEnv makes the test binary a process that holds the lock of a store.
const makerEnv = "CCV2_TEST_MAKER"

// TestEndMaker ends the process that has the lock.
func TestEndMaker(t *testing.T) {
	s := testStore(t)
	if err := s.EndMaker(t.Context()); err != nil {
		t.Errorf("without a store: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), makerEnv+"="+s.Dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has the lock
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.EndMaker(ctx); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the maker was not ended")
	}
	if err := s.EndMaker(t.Context()); err != nil {
		t.Errorf("with nobody: %v", err)
	}
}

// TestEndMakerKnowsIt: the pid of a maker that has ended may have a new owner.
func TestEndMakerKnowsIt(t *testing.T) {
	s := testStore(t)
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for _, text := range []string{"%d", `{"name":"maker","pid":%d,"start":1}`} {
		if err := os.WriteFile(filepath.Join(s.Dir, lockFile), fmt.Appendf(nil, text, other.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.EndMaker(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", text, err)
		}
		cancel()
	}
	if p, err := hostproc.Of("other", other.Process.Pid); err != nil || !p.Alive() {
		t.Errorf("who has the pid now was ended: %v", err)
	}
	_ = other.Process.Kill()
	_ = other.Wait()
}

// TestWantedIsNoMaker: to look for who makes a template keeps nobody from it.
func TestWantedIsNoMaker(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	if !wanted(s, testVM(d)) {
		t.Fatal("no template is wanted")
	}
	if names := files(t, s); len(names) > 0 {
		t.Errorf("there is %q", names)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, lockFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has locked the store: %v", err)
	}
}
