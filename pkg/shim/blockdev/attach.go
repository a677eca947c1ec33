package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Attached is a disk that an operator has attached: no container has it.
type Attached struct {
	ID       string // its serial in the guest as well
	Path     string // on the host
	ReadOnly bool
}

// byHand is one of them.
type byHand struct {
	Attached

	of      os.FileInfo // what the path was
	plugged bool        // otherwise it is just being plugged
}

// Attach plugs a block device, or a file with a raw image, by its path on the host. What somebody else uses is
// errdefs.ErrFailedPrecondition. The open file is all that there is of it on the host: it ends with the VMM, whatever becomes of
// the shim.
func (t *Table) Attach(ctx context.Context, vm Plugger, path string, readOnly bool) (Attached, error) {
	file, err := openAttached(path, readOnly)
	if err != nil {
		return Attached{}, fmt.Errorf("attach disk %s: %w", path, err)
	}
	defer file.Close()
	d, err := t.reserve(file, path, readOnly)
	if err != nil {
		return Attached{}, fmt.Errorf("attach disk %s: %w", path, err)
	}
	if _, device := numberOf(d.of); !device {
		err = lock(file, readOnly)
	}
	if err == nil {
		t.retry(ctx, vm) // it may need their slots
		err = vm.Plug(ctx, hypervisor.BlockDevice{ID: d.ID, File: file, ReadOnly: readOnly, Serial: d.ID})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.attached = slices.DeleteFunc(t.attached, func(other *byHand) bool { return other == d })
		t.stuck = append(t.stuck, d.ID) // where the VMM has not answered, it may get it yet
		return Attached{}, fmt.Errorf("attach disk %s: %w", path, err)
	}
	d.plugged = true
	return d.Attached, nil
}

// Detach unplugs a disk that was attached, by its id or its path, and returns when the guest has released it. One that the
// guest keeps stays, and can be detached again.
func (t *Table) Detach(ctx context.Context, vm Plugger, name string) error {
	t.mu.Lock()
	i := slices.IndexFunc(t.attached, func(d *byHand) bool { return d.ID == name || d.Path == name })
	if i < 0 || !t.attached[i].plugged {
		t.mu.Unlock()
		return fmt.Errorf("detach disk %s: none of this name was attached; those of containers go with them: %w", name, errdefs.ErrNotFound)
	}
	d := t.attached[i]
	t.mu.Unlock()
	if err := vm.Unplug(ctx, d.ID); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("detach disk %s: %w", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attached = slices.DeleteFunc(t.attached, func(other *byHand) bool { return other == d })
	return nil
}

// Attached are the disks that are attached.
func (t *Table) Attached() (all []Attached) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.attached {
		if d.plugged {
			all = append(all, d.Attached)
		}
	}
	return all
}

// reserve notes a disk before it is plugged, unless the VM has it.
func (t *Table) reserve(file *os.File, path string, readOnly bool) (*byHand, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, isDevice := numberOf(info)
	for _, other := range t.attached {
		m, otherIsDevice := numberOf(other.of)
		if os.SameFile(info, other.of) || isDevice && otherIsDevice && n == m {
			return nil, fmt.Errorf("the vm has it already, as %s: %w", other.ID, errdefs.ErrAlreadyExists)
		}
	}
	if isDevice && (t.disks[key{n, false}] != nil || t.disks[key{n, true}] != nil) {
		return nil, fmt.Errorf("a container of the pod has it: %w", errdefs.ErrFailedPrecondition)
	}
	t.count++
	d := &byHand{Attached: Attached{ID: fmt.Sprintf("disk%d", t.count), Path: path, ReadOnly: readOnly}, of: info}
	t.attached = append(t.attached, d)
	return d, nil
}

// numberOf is the number of a block device.
func numberOf(info os.FileInfo) (number, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeDevice == 0 {
		return number{}, false
	}
	return number{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, true
}

// openAttached opens a device or an image that nobody else uses.
func openAttached(path string, readOnly bool) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("want an absolute path: %w", errdefs.ErrInvalidArgument)
	}
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	info, err := os.Stat(path) //nolint:gosec // root names it, on a socket of root's alone
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	device := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	if !device && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is neither a block device nor a file: %w", errdefs.ErrInvalidArgument)
	}
	if device {
		flags |= unix.O_EXCL // which others that mount or claim it have, too
	}
	file, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0) //nolint:gosec // the same
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("it is mounted or otherwise in use on the host: %w", errdefs.ErrFailedPrecondition)
	case errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%w; --read-only attaches what cannot be written: %w", err, errdefs.ErrFailedPrecondition)
	case err != nil:
		return nil, err
	}
	if err := checkAttached(file, device, readOnly); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// checkAttached refuses what is not as it was, has no use as a disk, or is in use.
func checkAttached(file *os.File, device, readOnly bool) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if isDevice := info.Mode()&os.ModeDevice != 0; isDevice != device {
		return fmt.Errorf("it is just being replaced: %w", errdefs.ErrFailedPrecondition)
	}
	if device {
		if !readOnly && isReadOnly(file) {
			return fmt.Errorf("it cannot be written; --read-only attaches it nevertheless: %w", errdefs.ErrFailedPrecondition)
		}
		return nil
	}
	const sector = 512
	if info.Size() == 0 || info.Size()%sector != 0 {
		return fmt.Errorf("its %d bytes are no whole sectors of %d: %w", info.Size(), sector, errdefs.ErrInvalidArgument)
	}
	var magic [4]byte
	if _, err := file.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(magic[:]) == "QFI\xfb" {
		return fmt.Errorf("it is a qcow2 image, and a raw one is wanted: qemu-img convert -O raw makes one: %w", errdefs.ErrInvalidArgument)
	}
	if device := loopOf(info); device != "" {
		return fmt.Errorf("it is in use on the host, as /dev/%s: %w", device, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// loopOf is the loop device of a file; "" when it has none.
func loopOf(info os.FileInfo) string {
	backings, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // a good pattern
	for _, backing := range backings {
		b, err := os.ReadFile(backing)
		if err != nil {
			continue // it was just detached
		}
		if other, err := os.Stat(string(b[:max(0, len(b)-1)])); err == nil && os.SameFile(info, other) { //nolint:gosec // the kernel's word
			return filepath.Base(filepath.Dir(filepath.Dir(backing)))
		}
	}
	return ""
}

// lock locks an image for as long as somebody has the open file, as other programs with images do, QEMU among them.
func lock(file *os.File, readOnly bool) error {
	kind := int16(unix.F_WRLCK)
	if readOnly {
		kind = unix.F_RDLCK
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	errControl := conn.Control(func(fd uintptr) {
		err = unix.FcntlFlock(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: kind})
	})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("it is locked: another vm or program uses it: %w", errdefs.ErrFailedPrecondition)
	}
	return errors.Join(errControl, err)
}
