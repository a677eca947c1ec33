package shared

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Refresh asks the host about the files that a container has of the share, each mounted
// by itself. What the kernel knows of them is up to a second old: clients write to such
// files after the container was created, and it reads them as soon as it is started.
func (t *Table) Refresh(container string) {
	dir := filepath.Join(t.dir, container)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it has none
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		var st unix.Statx_t
		// An error is not new: whoever opens the file gets it.
		_ = unix.Statx(unix.AT_FDCWD, filepath.Join(dir, e.Name()), unix.AT_STATX_FORCE_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	}
}
