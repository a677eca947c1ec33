package ociruntime

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/beneath"
)

// OpenInRoot opens a file as if root were the root directory: no link leads out of
// it.
func OpenInRoot(root, file string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY), Resolve: unix.RESOLVE_IN_ROOT}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o644
	}
	fd, err := beneath.Open(dir, file, &how)
	if errors.Is(err, unix.ENOENT) {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "open %s: %w", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	return os.NewFile(uintptr(fd), file), nil
}
