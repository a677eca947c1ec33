package install

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile is what is locked, where the host runs: nobody but root can open it, and a
// container that has the host's root mounted has the same one.
const lockFile = "/run/ccv2-install.lock"

// ErrBusy says that somebody else has the lock.
var ErrBusy = errors.New("wait for its end; nothing was changed")

// lock keeps others from changing the host's installation meanwhile. On what has no /run, as
// the root of an image may not, the root directory is locked.
func lock(h Host) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(h.at(lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = os.Open(h.Root)
		}
		if err != nil {
			return nil, fmt.Errorf("lock the installation: %w", err)
		}
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("%s is changing this installation; %w", holder(f), ErrBusy), f.Close())
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if f.Name() == h.Root {
			return func() { _ = f.Close() }, nil
		}
		if isAt(f, h.at(lockFile)) {
			return func() {
				_ = os.Remove(f.Name()) // while it is locked: who has opened it meanwhile sees that it is gone
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // the one before has removed it
	}
}

// isAt reports whether a file is what there is at a path.
func isAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
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
