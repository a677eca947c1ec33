package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// diskDeadline bounds the wait for a hot-plugged disk.
const diskDeadline = 10 * time.Second

// FindDisk waits until the disk with a serial can be used, and returns its number.
func (m *Machine) FindDisk(ctx context.Context, serial string) (major, minor int64, err error) {
	m.LoadLate() // has the driver
	waitCtx, cancel := context.WithTimeout(ctx, diskDeadline)
	defer cancel()
	err = m.Wait(waitCtx, func() (ok bool, err error) {
		name, err := findDisk("/sys/block", serial)
		if name == "" || err != nil {
			return false, err
		}
		major, minor, ok, err = openDisk(filepath.Join("/dev", name))
		return ok, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = hyperstart.Errorf(hyperstart.ClassUnavailable, "it has not appeared after %v", diskDeadline)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find disk %s: %w", serial, err)
	}
	return major, minor, nil
}

// findDisk looks among the virtio disks, and returns a name, or "" while there is none with
// that serial. One that is just going may be there in part.
func findDisk(dir, serial string) (string, error) {
	disks, err := filepath.Glob(filepath.Join(dir, "vd*"))
	if err != nil {
		return "", err
	}
	for _, disk := range disks {
		b, err := os.ReadFile(filepath.Join(disk, "serial"))
		if err == nil && strings.TrimSpace(string(b)) == serial {
			return filepath.Base(disk), nil
		}
	}
	return "", nil
}

// openDisk returns the number of a disk. ok is false while it cannot be opened: the kernel
// makes a new disk's node and its files in /sys first, and announces it when it can be.
func openDisk(node string) (major, minor int64, ok bool, err error) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("open %s: %w", node, err)
	}
	defer unix.Close(fd) // nothing was written
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, false, fmt.Errorf("stat %s: %w", node, err)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), true, nil
}
