package template

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/log"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(makerEnv); dir != "" {
		if _, err := (&Store{Dir: dir}).lock(); err != nil {
			panic(err)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	}
	log.L.Logger.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

// saver is a VM that can be saved; its guest leaves a mark in its memory.
type saver struct {
	*fake.VM
	err error
}

func (s saver) Save(context.Context) ([]byte, error) { return []byte("devices"), s.err }

// driver makes such VMs.
type driver struct {
	fake.Driver
	facts   string
	guest   guesttest.Wire
	saveErr error
	starts  atomic.Int32
	// restoring, when set, is told of a VM that goes on from another one.
	restoring func(hypervisor.Spec) error
	until     time.Time // how long it may take
}

func newDriver(t *testing.T) *driver {
	d := &driver{facts: "a\nb\n"}
	d.Guest = func(_ *fake.VM, ports map[string]net.Conn) { d.guest.Serve(ports, true) }
	t.Cleanup(d.Close)
	return d
}

func (d *driver) Fingerprint(hypervisor.Spec) (string, error) { return d.facts, nil }

func (d *driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	d.starts.Add(1)
	if spec.Snapshot == nil {
		return d.Driver.Start(ctx, spec)
	}
	if spec.Snapshot.Devices != nil {
		d.until, _ = ctx.Deadline()
		if err := spec.Snapshot.Filled(); err != nil {
			return nil, err
		}
		if err := d.restoring(spec); err != nil {
			return nil, err
		}
		return d.Driver.Start(ctx, spec)
	}
	for _, mark := range marks {
		if _, err := spec.Snapshot.Memory.WriteAt([]byte("mark"), mark); err != nil {
			return nil, err
		}
	}
	vm, err := d.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return saver{vm.(*fake.VM), d.saveErr}, nil
}

// marks are where the guest has written to its memory.
var marks = []int64{0, 3 << 20, 3<<20 + 5000, 3<<20 + 100<<10, 63<<20 + 4092}

func testVM(d *driver) VM {
	return VM{Driver: d, Version: "1", Spec: hypervisor.Spec{
		Machine: hypervisor.MachineQ35, SharedMemory: true, Size: hypervisor.Size{CPUs: 1, MemoryMiB: 64},
	}}
}

func testStore(t *testing.T) *Store {
	return &Store{Dir: filepath.Join(t.TempDir(), "templates"), MaxBytes: 1 << 20}
}

// made makes a template.
func made(t *testing.T, s *Store, vm VM) *Template {
	t.Helper()
	tpl, err := s.Make(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// files are all names below a store, without the lock.
func files(t *testing.T, s *Store) (all []string) {
	t.Helper()
	err := filepath.WalkDir(s.Dir, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(s.Dir, path); rel != "." && rel != lockFile {
			all = append(all, rel)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}
