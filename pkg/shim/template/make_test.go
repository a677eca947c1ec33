package template

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
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
		snap, release, err := tpl.snapshot(t.Context())
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
		{"quiesce", func(d *driver, _ *VM) { d.guest.Refuse = hyperstart.Quiesce }, "prepare guest: "},
		{"killed", func(d *driver, _ *VM) { d.Guest = func(v *fake.VM, _ map[string]net.Conn) { v.Die() } }, "vm ended by itself: qemu died of signal killed"},
		{"save", func(d *driver, _ *VM) { d.saveErr = errors.New("cannot be saved") }, "cannot be saved"},
		{"original guest", func(d *driver, _ *VM) { d.guest.Version = 4243 }, "dialect hyperhq"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := testStore(t), newDriver(t)
			vm := testVM(d)
			tt.setUp(d, &vm)
			if !wanted(s, vm) {
				t.Error("no template is wanted")
			}
			if _, err := s.Make(t.Context(), vm); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			key, err := vm.Key()
			if err != nil {
				t.Fatal(err)
			}
			if wanted, why := s.Wanted(vm); !strings.Contains(why, tt.want) || wanted {
				t.Errorf("failed: %q, wanted again: %v", why, wanted)
			}
			if all, err := s.Failures(); len(all) != 1 || !strings.Contains(all[key], tt.want) || err != nil {
				t.Errorf("failures: %q, %v", all, err)
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
			if !wanted(s, vm) {
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
		if _, err := s.Make(t.Context(), vm); !errors.Is(err, errdefs.ErrNotImplemented) || wanted(s, vm) {
			t.Errorf("%s: %v, wanted: %v", name, err, wanted(s, vm))
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

// TestNoRoomToMake: a VM that the host has no memory for is not made.
func TestNoRoomToMake(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	vm := testVM(d)
	vm.Spec.MemoryMiB = 64 << 20
	if _, err := s.Make(t.Context(), vm); !errors.Is(err, errdefs.ErrResourceExhausted) || d.starts.Load() != 0 {
		t.Errorf("%d VMs were started: %v", d.starts.Load(), err)
	}
	meminfo := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(meminfo, []byte("MemTotal: 8000000 kB\nMemAvailable:    2097152 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := hasRoom(1024, meminfo); err != nil {
		t.Error(err)
	}
	if err := hasRoom(64<<10, meminfo); err == nil {
		t.Error("more than half of what is available is taken")
	}
}

// TestMakeGivenUp: that nobody waits for a template says nothing about the next try.
func TestMakeGivenUp(t *testing.T) {
	s, d := testStore(t), newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Make(ctx, testVM(d)); err == nil {
		t.Fatal("it was made")
	}
	if !wanted(s, testVM(d)) {
		t.Error("no template is wanted")
	}
}

func wanted(s *Store, vm VM) bool {
	wanted, _ := s.Wanted(vm)
	return wanted
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
	_, release, err := all[0].snapshot(t.Context())
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
	if err := os.Mkdir(s.path(KeyOf("x"))+goneSuffix+"123", 0o700); err != nil { // of who was killed
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
