package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
)

// Files that the shim leaves in a bundle.
const (
	noteFile    = "ccv2.json"
	exitFile    = "ccv2-exit.json"
	shimFile    = "ccv2-shim.json"
	deletedFile = "ccv2-deleted"
	dialFile    = "address" // containerd's name
)

// Note is what a container's bundle says about its sandbox. The delete command
// knows the bundle alone.
type Note struct {
	Dir       string `json:"dir"`       // the sandbox's directory
	SandboxID string `json:"sandboxId"` // equal to the container's id for the sandbox container
	Share     string `json:"share"`     // directory below shared/ that is the container's
	PID       int    `json:"pid"`       // that containerd knows it by; 0 before it has one
	// Outlived is set when the sandbox container was deleted while other
	// containers were left.
	Outlived bool `json:"outlived"`
	// Poststop is set while poststop hooks are to be run after the removal.
	Poststop bool `json:"poststop,omitempty"`
}

// SaveNote writes n into the bundle at dir.
func SaveNote(dir string, n Note) error { return jsonfile.Write(filepath.Join(dir, noteFile), n) }

// LoadNote reads it. A missing one is errdefs.ErrNotFound.
func LoadNote(dir string) (n Note, err error) {
	return n, jsonfile.Read(filepath.Join(dir, noteFile), &n)
}

// Exit is how a container's init process ended.
type Exit struct {
	Status uint32    `json:"status"`
	At     time.Time `json:"at"`
	PID    int       `json:"pid"`
}

// SaveExit writes e into the bundle at dir.
func SaveExit(dir string, e Exit) error { return jsonfile.Write(filepath.Join(dir, exitFile), e) }

// LoadExit reads it. A missing one is errdefs.ErrNotFound.
func LoadExit(dir string) (e Exit, err error) {
	return e, jsonfile.Read(filepath.Join(dir, exitFile), &e)
}

// Address is where the shim of a container listens.
type Address struct {
	Address string `json:"address"` // as containerd dials it
	// Shim is the process that was started for this very bundle; nil when a
	// running one was found.
	Shim *hostproc.Process `json:"shim,omitempty"`
}

// SaveAddress writes a into the bundle at dir.
func SaveAddress(dir string, a Address) error { return jsonfile.Write(filepath.Join(dir, shimFile), a) }

// LoadAddress reads it. A missing one is errdefs.ErrNotFound.
func LoadAddress(dir string) (a Address, err error) {
	return a, jsonfile.Read(filepath.Join(dir, shimFile), &a)
}

// SaveDialAddress writes where containerds before 2.0 look for a shim when they were
// started again, and later ones for a shim that an earlier one had started.
func SaveDialAddress(dir, address string) error {
	path := filepath.Join(dir, dialFile)
	half := filepath.Join(dir, "."+dialFile)
	if err := os.WriteFile(half, []byte(address), 0o600); err != nil {
		return fmt.Errorf("save address of shim: %w", err)
	}
	if err := os.Rename(half, path); err != nil {
		return fmt.Errorf("save address of shim: %w", err)
	}
	return nil
}

// Lock keeps the start and the delete command of a container apart until
// unlock is called or the process ends. The commands outlive the containerd that
// has run them, so the next one may delete a bundle whose shim is just being
// started. A bundle that is gone is errdefs.ErrNotFound.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("lock bundle %s: %w", dir, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock bundle %s: %w", dir, err)
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
			return nil, fmt.Errorf("lock bundle %s: %w", dir, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = unix.Close(fd)
			return nil, fmt.Errorf("lock bundle %s: another command holds it: %w", dir, ctx.Err())
		}
	}
}

// MarkDeleted marks a bundle as deleted: no shim may be started for it any more.
// The caller holds its lock.
func MarkDeleted(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, deletedFile), nil, 0o600); err != nil {
		return fmt.Errorf("mark bundle as deleted: %w", err)
	}
	return nil
}

// Deleted reports whether a bundle is marked, or gone altogether.
func Deleted(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, configFile)); err != nil {
		return true
	}
	_, err := os.Lstat(filepath.Join(dir, deletedFile))
	return err == nil
}
