package blockdev

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Plugger is the VM's side: it takes devices and gives them up.
type Plugger interface {
	Plug(ctx context.Context, d hypervisor.Device) error
	Unplug(ctx context.Context, id string) error
}

// Table is the disks of a VM. Its methods are safe for concurrent use.
type Table struct {
	dir         string // for a node that is made for a moment
	unplugLimit time.Duration

	mu    sync.Mutex // guards what follows
	disks map[key]*disk
	count int // of disks so far, for their serials
}

// key is what containers have one disk of.
type key struct {
	number
	readOnly bool
}

// number is that of a device on the host.
type number struct{ major, minor uint32 }

// disk is a device that is plugged, or being plugged.
type disk struct {
	serial  string
	plugged chan struct{} // closed when it is, or when err says why not
	err     error

	users int // guarded by the table's mu
}

// NewTable returns a table for a VM whose state is below dir, a directory. unplugLimit is
// how long one device may take to leave the guest.
func NewTable(dir string, unplugLimit time.Duration) *Table {
	return &Table{dir: dir, unplugLimit: unplugLimit, disks: make(map[key]*disk)}
}

// View is the disks of one container. Its methods are not called concurrently.
type View struct {
	table *Table
	vm    Plugger
	used  []key
}

// View makes the view of a container of a VM.
func (t *Table) View(vm Plugger) *View { return &View{table: t, vm: vm} }

// Disks plugs the block devices that a container is given and that are not there yet. One
// that the host does not have is errdefs.ErrNotFound. The view is closed whatever came of it.
func (v *View) Disks(ctx context.Context, spec *specs.Spec) ([]hyperstart.Disk, error) {
	var disks []hyperstart.Disk
	for _, d := range given(spec) {
		serial, err := v.acquire(ctx, d.key)
		if err != nil {
			return nil, fmt.Errorf("block device %v: %w", d, err)
		}
		disks = append(disks, hyperstart.Disk{Major: int64(d.major), Minor: int64(d.minor), Serial: serial})
	}
	return disks, nil
}

// acquire returns when the device is plugged.
func (v *View) acquire(ctx context.Context, k key) (serial string, err error) {
	t := v.table
	t.mu.Lock()
	writable := key{k.number, false}
	if t.disks[writable] != nil {
		k = writable // the container's rules keep it from writing, and there is nothing to keep the guest from
	}
	d := t.disks[k]
	first := d == nil
	if first {
		t.count++
		d = &disk{serial: fmt.Sprintf("disk%d", t.count), plugged: make(chan struct{})}
		t.disks[k] = d
	}
	d.users++
	t.mu.Unlock()
	v.used = append(v.used, k)
	if first {
		d.err = t.plug(ctx, v.vm, k, d.serial)
		close(d.plugged)
	}
	select {
	case <-d.plugged:
		return d.serial, d.err
	case <-ctx.Done():
		return "", fmt.Errorf("wait until another container has it: %w", ctx.Err())
	}
}

// plug opens a device and gives it to the VMM.
func (t *Table) plug(ctx context.Context, vm Plugger, k key, serial string) error {
	file, readOnly, err := open(k, t.dir)
	if err != nil {
		return err
	}
	err = vm.Plug(ctx, hypervisor.BlockDevice{ID: serial, File: file, ReadOnly: readOnly, Serial: serial})
	return errors.Join(err, file.Close())
}

// Close unplugs what no other container has. It is idempotent, and comes after the
// container was removed from the guest.
func (v *View) Close() error {
	var errs []error
	for _, k := range v.used {
		errs = append(errs, v.table.release(v.vm, k))
	}
	v.used = nil
	return errors.Join(errs...)
}

func (t *Table) release(vm Plugger, k key) error {
	t.mu.Lock()
	d := t.disks[k]
	d.users--
	last := d.users == 0
	if last {
		delete(t.disks, k)
	}
	t.mu.Unlock()
	if !last {
		return nil
	}
	<-d.plugged
	ctx, cancel := context.WithTimeout(context.Background(), t.unplugLimit)
	defer cancel()
	err := vm.Unplug(ctx, d.serial)
	if d.err != nil && errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) { // it was not plugged, or the VM is gone
		return nil
	}
	return err
}
