package install

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// lock keeps others from changing the host's installation meanwhile. What is locked is the
// root directory: it is there before an installation and after it, and is the same one
// for a container that has it mounted.
func lock(h Host) (unlock func(), err error) {
	root, err := os.Open(h.Root)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(root.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("%s is changing this installation; wait for its end; nothing was changed", holder(root)), root.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", h.Root, err), root.Close())
	}
	return func() { _ = root.Close() }, nil
}

// holder says which process has a lock, as far as the kernel tells this one.
func holder(f *os.File) string {
	const unknown = "another process"
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer locks.Close()
	object := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:2 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) > 5 && fields[1] == "FLOCK" && fields[5] == object && fields[4] > "0" {
			return "process " + fields[4]
		}
	}
	return unknown
}
