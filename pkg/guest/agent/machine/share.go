package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// shareDeadline bounds the wait for the share's hot-plugged device.
const shareDeadline = 10 * time.Second

// MountShm makes the shared memory of the pod's containers; size is in bytes.
func MountShm(size int64) error {
	if size == 0 {
		return nil
	}
	if err := os.MkdirAll(hyperstart.ShmMount, 0o755); err != nil {
		return fmt.Errorf("mount shared memory: %w", err)
	}
	data := fmt.Sprintf("mode=1777,size=%d", size)
	if err := unix.Mount("shm", hyperstart.ShmMount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "mount shared memory of %d bytes: %w", size, err)
	}
	return nil
}

// MountShare mounts the file system with the given tag. Its device may be
// plugged in only now.
func (m *Machine) MountShare(ctx context.Context, tag, kind string) error {
	data := ""
	switch kind {
	case "virtiofs":
	case "9p":
		// The size of a message is what 9p's throughput hangs on; this is the
		// largest that fits virtio's ring of 128 pages. Without cache=mmap no
		// file can be mapped for writing; nothing else is cached.
		data = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"
	default:
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "share type %q is neither virtiofs nor 9p", kind)
	}
	if err := m.awaitShareModules(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(hyperstart.ShareMount, 0o755); err != nil {
		return fmt.Errorf("mount share: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, shareDeadline)
	defer cancel()
	var last error
	err := m.events.wait(ctx, func() (bool, error) {
		last = unix.Mount(tag, hyperstart.ShareMount, kind, unix.MS_NODEV, data)
		switch {
		case last == nil:
			return true, nil
		case errors.Is(last, unix.ENODEV):
			return false, hyperstart.Errorf(hyperstart.ClassNotImplemented, "mount share: this guest's kernel has no %s", kind)
		case errors.Is(last, unix.EINVAL), errors.Is(last, unix.ENOENT):
			return false, nil // no device with this tag yet
		}
		return false, fmt.Errorf("mount share %s: %w", tag, last)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return hyperstart.Errorf(hyperstart.ClassUnavailable,
			"mount share: no %s device with tag %s after %v: %w", kind, tag, shareDeadline, last)
	}
	return err
}
