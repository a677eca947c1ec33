package template

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
)

// TestSnapshot: a copy has what the VM's memory had, and its own pages alone.
func TestSnapshot(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	tpl := made(t, s, testVM(d))
	if again := made(t, s, testVM(d)); again.Key != tpl.Key || d.starts.Load() != 1 {
		t.Errorf("made again: %s, %s, %d VMs", tpl.Key, again.Key, d.starts.Load())
	}
	if sum := tpl.Index.Bytes(); sum > 200<<10 {
		t.Errorf("the template has %d bytes, of %d extents", sum, len(tpl.Index.Memory))
	}
	for _, name := range []string{".", indexFile, memoryFile, devicesFile} {
		info, err := os.Stat(filepath.Join(s.path(tpl.Key), name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", name, info, err)
		}
	}
	want := make([]byte, 64<<20)
	for _, mark := range marks {
		copy(want[mark:], "mark")
	}
	for range 2 {
		snap, release, err := tpl.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := snap.Filled(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(snap.Memory, 0, 128<<20))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d bytes, %v, which are not those of the VM", len(got), err)
		}
		if string(snap.Devices) != "devices" {
			t.Errorf("devices %q", snap.Devices)
		}
		if _, err := snap.Memory.WriteAt([]byte("changed"), 0); err != nil { // the next one must not see it
			t.Error(err)
		}
		release()
	}
}

// TestKey: whatever the VM depends on makes another template.
func TestKey(t *testing.T) {
	d := newDriver(t)
	key := func(vm VM) Key {
		k, err := vm.Key()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(testVM(d))
	other := testVM(d)
	other.Version = "2"
	if key(other) == first {
		t.Error("another version has the same template")
	}
	d.facts += "c\n"
	if key(testVM(d)) == first {
		t.Error("another fingerprint has the same template")
	}
}

// TestMakeFails: nothing is left but the reason, and it is not tried again soon.
func TestMakeFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*driver, *VM)
		want  string
	}{
		{"start", func(d *driver, _ *VM) { d.Errs = map[fake.Step]error{fake.Start: errors.New("no vmm today")} }, "no vmm today"},
		{"ports", func(d *driver, _ *VM) { d.Errs = map[fake.Step]error{fake.Dial: errors.New("no port")} }, "no port"},
		{"quiesce", func(d *driver, _ *VM) { d.refuse = hyperstart.Quiesce }, "prepare guest: "},
		{"save", func(d *driver, _ *VM) { d.saveErr = errors.New("cannot be saved") }, "cannot be saved"},
		{"original guest", func(d *driver, _ *VM) { d.version = 4243 }, "dialect hyperhq"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := testStore(t), newDriver(t)
			vm := testVM(d)
			tt.setUp(d, &vm)
			if !s.Wanted(vm) {
				t.Error("no template is wanted")
			}
			if _, err := s.Make(t.Context(), vm); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			key, err := vm.Key()
			if err != nil {
				t.Fatal(err)
			}
			if why := s.Failed(key); !strings.Contains(why, tt.want) || s.Wanted(vm) {
				t.Errorf("failed: %q, wanted again: %v", why, s.Wanted(vm))
			}
			if diff := cmp.Diff([]string{string(key) + failedSuffix}, files(t, s)); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			if last := d.Last(); last != nil {
				<-last.Done()
			}
			long := time.Now().Add(-2 * retryAfter)
			if err := os.Chtimes(s.path(key)+failedSuffix, long, long); err != nil {
				t.Fatal(err)
			}
			if !s.Wanted(vm) {
				t.Error("it is not tried again later")
			}
		})
	}
}

// TestUnfit: VMs that cannot have a template boot.
func TestUnfit(t *testing.T) {
	for name, change := range map[string]func(*VM){
		"microvm":  func(vm *VM) { vm.Spec.Machine = hypervisor.MachineMicroVM },
		"9p":       func(vm *VM) { vm.Spec.SharedMemory = false },
		"original": func(vm *VM) { vm.Dialect = hyperstart.DialectHyperhq },
	} {
		s, d := testStore(t), newDriver(t)
		vm := testVM(d)
		change(&vm)
		if _, err := s.Make(t.Context(), vm); !errors.Is(err, errdefs.ErrNotImplemented) || s.Wanted(vm) {
			t.Errorf("%s: %v, wanted: %v", name, err, s.Wanted(vm))
		}
		running, refuse, err := (&Source{Store: s, VM: vm}).Acquire(t.Context(), hypervisor.Spec{}, math.MaxInt)
		if err != nil || refuse != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := running.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestOneMaker at a time, and what a dead one has left is removed by the next.
func TestOneMaker(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(t.Context(), testVM(d)); !errors.Is(err, errdefs.ErrUnavailable) || s.Wanted(testVM(d)) {
		t.Errorf("a second maker: %v", err)
	}
	if d.starts.Load() != 0 {
		t.Error("it has started a VM")
	}
	left := s.path(KeyOf("of a maker that was killed")) + partSuffix
	if err := os.MkdirAll(filepath.Join(left, "vm"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock()
	key := made(t, s, testVM(d)).Key
	for _, name := range files(t, s) {
		if !strings.HasPrefix(name, string(key)) || strings.HasSuffix(name, partSuffix) {
			t.Errorf("left: %s", name)
		}
	}
}

// TestBound: those that were not used for the longest time go first.
func TestBound(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	var keys []Key
	for i, facts := range []string{"1\n", "2\n", "3\n"} {
		d.facts = facts
		if i == 2 {
			s.MaxBytes = 1 // what is new stays
		}
		tpl := made(t, s, testVM(d))
		keys = append(keys, tpl.Key)
		before := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(s.path(tpl.Key), indexFile), before, before); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Key != keys[2] {
		t.Errorf("%d are left, %v", len(all), err)
	}
	_, release, err := all[0].snapshot()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if used, err := s.Open(keys[2]); err != nil || time.Since(used.Used) > time.Minute {
		t.Errorf("its use is not noted: %v, %v", used, err)
	}
}

// TestRemoveAll leaves what others have put into the directory.
func TestRemoveAll(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	if err := s.RemoveAll(); err != nil {
		t.Errorf("without a directory: %v", err)
	}
	made(t, s, testVM(d))
	d.facts, d.saveErr = "other", errors.New("not today")
	if _, err := s.Make(t.Context(), testVM(d)); err == nil {
		t.Fatal("it was made")
	}
	notes := filepath.Join(s.Dir, "notes.txt")
	if err := os.WriteFile(notes, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveAll(); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("while one is made: %v", err)
	}
	unlock()
	if err := s.RemoveAll(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"notes.txt"}, files(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := errors.Join(os.Remove(notes), s.RemoveAll()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
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
