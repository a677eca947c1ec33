package template

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
)

// TestSource: a VM goes on from the template with the pod's own names, and one that is refused is
// not tried again.
func TestSource(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	vm := testVM(d)
	made(t, s, vm)
	var restored []hypervisor.Spec
	d.restoring = func(spec hypervisor.Spec) error {
		restored = append(restored, spec)
		return nil
	}
	source := &Source{Store: s, VM: vm}
	spec := vm.Spec
	spec.ID, spec.Dir = "pod", "/run/pod"
	running, refuse, err := source.Acquire(t.Context(), spec, math.MaxInt)
	if err != nil || refuse == nil || len(restored) != 1 || restored[0].ID != "pod" || restored[0].Dir != "/run/pod" {
		t.Fatalf("%v, %v", restored, err)
	}
	if err := running.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := restored[0].Snapshot.Memory.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("its memory is open yet: %v", err)
	}
	refuse(errors.New("it does not answer"))
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	made(t, s, vm)
	d.restoring = func(hypervisor.Spec) error { return errors.New("qemu says no") }
	running, refuse, err = source.Acquire(t.Context(), spec, math.MaxInt)
	if err != nil || refuse != nil {
		t.Fatalf("the VM does not boot: %v", err)
	}
	if err := running.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestAborted: the end of the caller is no fault of the template's.
func TestAborted(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	made(t, s, testVM(d))
	ctx, cancel := context.WithCancel(t.Context())
	d.restoring = func(hypervisor.Spec) error {
		cancel()
		return ctx.Err()
	}
	if _, _, err := (&Source{Store: s, VM: testVM(d)}).Acquire(ctx, hypervisor.Spec{}, math.MaxInt); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if all, err := s.List(); len(all) != 1 || err != nil {
		t.Errorf("%d templates, %v", len(all), err)
	}
}

// TestDamaged: what is not as it was written is removed, and said to be none.
func TestDamaged(t *testing.T) {
	change := func(name string, at int64) func(string) error {
		return func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("?"), at)
			return err
		}
	}
	cut := func(name string, size int64) func(string) error {
		return func(dir string) error { return os.Truncate(filepath.Join(dir, name), size) }
	}
	for name, damage := range map[string]func(dir string) error{
		"memory":          change(memoryFile, 3<<20+5001),
		"devices":         change(devicesFile, 2),
		"index":           change(indexFile, 0),
		"short memory":    cut(memoryFile, 1<<20),
		"short devices":   cut(devicesFile, 3),
		"empty index":     cut(indexFile, 0),
		"no memory":       func(dir string) error { return os.Remove(filepath.Join(dir, memoryFile)) },
		"no devices":      func(dir string) error { return os.Remove(filepath.Join(dir, devicesFile)) },
		"another version": rewrite(`"version":1`, `"version":2`),
		"another vm":      rewrite(`a\nb\n`, `a\nc\n`),
		"out of bounds":   rewrite(`"offset":3145728`, `"offset":67108863`),
		"too large":       rewrite(`"length":4096`, `"length":1048577`),
	} {
		t.Run(name, func(t *testing.T) {
			s, d := testStore(t), newDriver(t)
			tpl := made(t, s, testVM(d))
			if err := damage(s.path(tpl.Key)); err != nil {
				t.Fatal(err)
			}
			d.restoring = func(hypervisor.Spec) error { return errors.New("a damaged one is used") }
			source := &Source{Store: s, VM: testVM(d)}
			vm, refuse, err := source.Acquire(t.Context(), hypervisor.Spec{ID: "pod"}, math.MaxInt)
			if err != nil || refuse != nil {
				t.Fatalf("the VM does not boot: %v", err)
			}
			if err := vm.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			if left := files(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			made(t, s, testVM(d))
		})
	}
}

// rewrite replaces text in the index.
func rewrite(old, text string) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, indexFile)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(b), old) {
			return errors.New("no " + old + " in " + string(b))
		}
		return os.WriteFile(path, []byte(strings.Replace(string(b), old, text, 1)), 0o600)
	}
}

// TestNoRoom: where the copy would be too much the VM boots, and the template stays.
func TestNoRoom(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	tpl := made(t, s, testVM(d))
	d.restoring = func(hypervisor.Spec) error { return errors.New("it is copied") }
	vm, refuse, err := (&Source{Store: s, VM: testVM(d)}).Acquire(t.Context(), hypervisor.Spec{}, int(tpl.Index.Bytes())+beside-1)
	if err != nil || refuse != nil {
		t.Fatalf("the VM does not boot: %v", err)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(tpl.Key); err != nil {
		t.Error(err)
	}
}

// TestRemovedAtOnce: who looks for a template that is being removed finds it whole, or not at all.
func TestRemovedAtOnce(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	for range 20 {
		tpl := made(t, s, testVM(d))
		removed := make(chan error)
		go func() { removed <- s.Remove(tpl.Key) }()
		for there := true; there; {
			_, err := os.Stat(filepath.Join(tpl.path, memoryFile))
			_, indexErr := os.Stat(filepath.Join(tpl.path, indexFile))
			_, again := os.Stat(filepath.Join(tpl.path, memoryFile))
			if err == nil && indexErr != nil && again == nil {
				t.Error("half of it is there")
			}
			there = again == nil
		}
		if err := <-removed; err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplacedAtOnce: who looks for a template that is being replaced finds the old one, none, or the new one,
// and removes none.
func TestReplacedAtOnce(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	key := made(t, s, testVM(d)).Key
	done, looked := make(chan struct{}), make(chan error)
	go func() {
		var refused error
		for refused == nil {
			select {
			case <-done:
				looked <- nil
				return
			default:
			}
			if _, err := s.Open(key); err != nil && !plainlyNone(err) {
				refused = err
			}
		}
		looked <- refused
	}()
	aside := filepath.Join(t.TempDir(), "template")
	for range 2000 {
		if err := errors.Join(os.Rename(s.path(key), aside), os.Rename(aside, s.path(key))); err != nil {
			t.Fatal(err, <-looked)
		}
	}
	close(done)
	if err := <-looked; err != nil {
		t.Error(err)
	}
}

// plainlyNone reports whether an error says that there is no template, and nothing else.
func plainlyNone(err error) bool { return errdefs.IsNotFound(err) && !errors.Is(err, errRefused) }

// TestReplaced: what has replaced a template meanwhile is not removed for its faults.
func TestReplaced(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	first := made(t, s, testVM(d))
	kept := filepath.Join(t.TempDir(), "kept") // its inode is not used again
	if err := errors.Join(os.Rename(s.path(first.Key), kept), s.Remove(first.Key)); err != nil {
		t.Fatal(err)
	}
	made(t, s, testVM(d))
	if err := s.refuseThis(first, errors.New("not today")); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Open(first.Key); err != nil {
		t.Error(err)
	}
}

// TestKept: a template stays that is not to blame: no VM starts here, or its copy takes too long.
func TestKept(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	tpl := made(t, s, testVM(d))
	source := &Source{Store: s, VM: testVM(d)}
	d.restoring = func(hypervisor.Spec) error { return errors.New("no process can be started") }
	d.Errs = map[fake.Step]error{fake.Start: errors.New("no process today")}
	if _, _, err := source.Acquire(t.Context(), hypervisor.Spec{}, math.MaxInt); err == nil || !strings.Contains(err.Error(), "no process today") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Open(tpl.Key); err != nil {
		t.Errorf("where no VM starts: %v", err)
	}

	d.Errs = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	snap, release, err := tpl.snapshot(gone)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	slow := snap.Filled()
	if !errors.Is(slow, errNotCopied) {
		t.Errorf("a copy that nobody waits for: %v", slow)
	}
	d.restoring = func(hypervisor.Spec) error { return fmt.Errorf("start: %w", slow) }
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	vm, refuse, err := source.Acquire(ctx, hypervisor.Spec{}, math.MaxInt)
	if err != nil || refuse != nil {
		t.Fatalf("the VM does not boot: %v", err)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(tpl.Key); err != nil {
		t.Errorf("with a slow disk: %v", err)
	}
	if left := time.Until(d.until); left > 15*time.Minute {
		t.Errorf("of an hour, the template may take %v", left)
	}
}
