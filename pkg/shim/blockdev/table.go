package blockdev

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Plugger is the VM's side: it takes devices and gives them up.
type Plugger interface {
	Plug(ctx context.Context, d hypervisor.Device) error
	Unplug(ctx context.Context, id string) error
}

// retryLimit is how long a device that has not left the guest in time may take once more,
// which others wait for. A guest releases one within 100 ms when it runs.
const retryLimit = 2 * time.Second

// Table is the disks of a VM. Its methods are safe for concurrent use.
type Table struct {
	unplugLimit time.Duration

	mu       sync.Mutex // guards what follows
	disks    map[key]*disk
	attached []*byHand
	stuck    []string // serials of those that could not be unplugged
	count    int      // of disks so far, for their serials
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
	key
	serial  string
	plugged chan struct{} // closed when it is, or when err says why not
	err     error

	users int // guarded by the table's mu
}

// NewTable returns a table for a VM. unplugLimit is how long one device may take to leave
// the guest.
func NewTable(unplugLimit time.Duration) *Table {
	return &Table{unplugLimit: unplugLimit, disks: make(map[key]*disk)}
}

// View is the disks of one container. Its methods are not called concurrently.
type View struct {
	table *Table
	vm    Plugger
	used  []*disk
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
	for {
		d, first := t.use(k)
		v.used = append(v.used, d)
		if first {
			t.retry(ctx, v.vm) // it may need their slots
			d.err = t.plug(ctx, v.vm, d)
			close(d.plugged)
			return d.serial, d.err
		}
		select {
		case <-d.plugged:
		case <-ctx.Done():
			return "", fmt.Errorf("wait until another container has it: %w", ctx.Err())
		}
		if !errors.Is(d.err, context.Canceled) && !errors.Is(d.err, context.DeadlineExceeded) {
			return d.serial, d.err
		}
		// That was the other container's time.
		v.used = v.used[:len(v.used)-1]
		if err := t.release(v.vm, d); err != nil {
			log.G(ctx).WithError(err).Warn("a block device that another container wanted has stayed: it is tried again with the next one")
		}
	}
}

// use adds a user to the disk for a key. The first one plugs it.
func (t *Table) use(k key) (d *disk, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	writable := key{k.number, false}
	if t.disks[writable] != nil {
		k = writable // the container's rules keep it from writing, and there is nothing to keep the guest from
	}
	d = t.disks[k]
	if d == nil {
		first = true
		t.count++
		d = &disk{key: k, serial: fmt.Sprintf("disk%d", t.count), plugged: make(chan struct{})}
		t.disks[k] = d
	}
	d.users++
	return d, first
}

// plug opens a device and gives it to the VMM. When that fails the next one who wants it
// gets another disk.
func (t *Table) plug(ctx context.Context, vm Plugger, d *disk) error {
	file, readOnly, err := open(d.key)
	if err == nil {
		err = vm.Plug(ctx, hypervisor.BlockDevice{ID: d.serial, File: file, ReadOnly: readOnly, Serial: d.serial})
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.mu.Lock()
		delete(t.disks, d.key)
		t.mu.Unlock()
	}
	return err
}

// Close unplugs what no other container has. It is idempotent, and comes after the
// container was removed from the guest. What the guest does not release in time is
// unplugged with the next container that comes or goes.
func (v *View) Close() error {
	v.table.retry(context.Background(), v.vm)
	var errs []error
	for _, d := range v.used {
		errs = append(errs, v.table.release(v.vm, d))
	}
	v.used = nil
	return errors.Join(errs...)
}

// release ends the use of a disk.
func (t *Table) release(vm Plugger, d *disk) error {
	t.mu.Lock()
	d.users--
	last := d.users == 0
	if last && t.disks[d.key] == d {
		delete(t.disks, d.key)
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
	if err != nil {
		t.mu.Lock()
		t.stuck = append(t.stuck, d.serial)
		t.mu.Unlock()
	}
	return err
}

// retry unplugs what has not left the guest in time.
func (t *Table) retry(ctx context.Context, vm Plugger) {
	t.mu.Lock()
	stuck := t.stuck
	t.stuck = nil
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, retryLimit)
	defer cancel()
	for _, serial := range stuck {
		err := vm.Unplug(ctx, serial)
		if err == nil || errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
			continue
		}
		log.G(ctx).WithError(err).WithField("disk", serial).Warn("a block device that no container has any more stays in the VM for now")
		t.mu.Lock()
		t.stuck = append(t.stuck, serial)
		t.mu.Unlock()
	}
}
