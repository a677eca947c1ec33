package beneath

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tries bounds how often a path is resolved again. Each time something has to be renamed
// or mounted on the host in the microseconds between.
const tries = 1000

// Open is openat2(2), which gives up with EAGAIN when it meets ".." while anything is
// renamed or mounted anywhere on the host, because it cannot tell whether it has been
// led out. The path is then resolved again.
func Open(dir int, path string, how *unix.OpenHow) (fd int, err error) {
	for range tries {
		fd, err = unix.Openat2(dir, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}
