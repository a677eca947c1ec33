package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// diskDeadline bounds the wait for a hot-plugged disk.
const diskDeadline = 10 * time.Second

// FindDisk waits for the disk with a serial, and returns its number.
func (m *Machine) FindDisk(ctx context.Context, serial string) (major, minor int64, err error) {
	m.LoadLate() // has the driver
	waitCtx, cancel := context.WithTimeout(ctx, diskDeadline)
	defer cancel()
	err = m.Wait(waitCtx, func() (ok bool, err error) {
		major, minor, ok, err = findDisk("/sys/block", serial)
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

// findDisk looks among the virtio disks. One that is just going may be there in part.
func findDisk(dir, serial string) (major, minor int64, ok bool, err error) {
	disks, err := filepath.Glob(filepath.Join(dir, "vd*"))
	if err != nil {
		return 0, 0, false, err
	}
	for _, disk := range disks {
		b, err := os.ReadFile(filepath.Join(disk, "serial"))
		if err != nil || strings.TrimSpace(string(b)) != serial {
			continue
		}
		if b, err = os.ReadFile(filepath.Join(disk, "dev")); err != nil {
			return 0, 0, false, err
		}
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
			return 0, 0, false, fmt.Errorf("%s has number %q: %w", disk, b, err)
		}
		return major, minor, true, nil
	}
	return 0, 0, false, nil
}
