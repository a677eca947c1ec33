package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	shimFile    = "ccv2-shim.json"
	deletedFile = "ccv2-deleted"
)

// Address is where the shim of a container listens.
type Address struct {
	Address string `json:"address"` // as containerd dials it
	// Shim is the process that was started for this very bundle; nil when one
	// was found that runs already.
	Shim *Process `json:"shim,omitempty"`
}

// SaveAddress writes a into the bundle directory.
func SaveAddress(bundle string, a Address) error {
	return writeJSON(filepath.Join(bundle, shimFile), a)
}

// LoadAddress reads it. One that is missing is errdefs.ErrNotFound.
func LoadAddress(bundle string) (Address, error) {
	var a Address
	return a, readJSON(filepath.Join(bundle, shimFile), &a)
}

// LockBundle keeps the start and the delete command of a container apart until
// unlock is called or the process ends. The commands outlive the containerd that
// has run them, so the next one may delete a bundle whose shim is just being
// started. A bundle that is gone is errdefs.ErrNotFound.
func LockBundle(ctx context.Context, bundle string) (unlock func(), err error) {
	fd, err := unix.Open(bundle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("lock bundle %s: %w", bundle, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock bundle %s: %w", bundle, err)
	}
	const step = 10 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("lock bundle %s: %w", bundle, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = unix.Close(fd)
			return nil, fmt.Errorf("lock bundle %s: another command holds it: %w", bundle, ctx.Err())
		}
	}
}

// SaveDeleted marks a bundle as deleted: no shim may be started for it any more.
// The caller holds its lock.
func SaveDeleted(bundle string) error {
	if err := os.WriteFile(filepath.Join(bundle, deletedFile), nil, 0o600); err != nil {
		return fmt.Errorf("mark bundle as deleted: %w", err)
	}
	return nil
}

// Deleted reports whether a bundle is marked, or gone altogether.
func Deleted(bundle string) bool {
	if _, err := os.Lstat(filepath.Join(bundle, "config.json")); err != nil {
		return true
	}
	_, err := os.Lstat(filepath.Join(bundle, deletedFile))
	return err == nil
}
