package shared

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// memory is the volumes that the guest has in its memory. They are never removed: what a
// container has left in one is for the next.
type memory struct {
	dir string // has each at its name

	mu   sync.Mutex // guards made, and is held while one is made
	made map[string]bool
}

// MakeMemory makes volumes in memory that are not there yet.
func (t *Table) MakeMemory(volumes []hyperstart.MemoryVolume) error {
	for _, v := range volumes {
		if err := t.memory.make(v); err != nil {
			return fmt.Errorf("make volume %s in memory: %w", v.Name, err)
		}
	}
	return nil
}

func (m *memory) make(v hyperstart.MemoryVolume) error {
	if !filepath.IsLocal(v.Name) || filepath.Base(v.Name) != v.Name || v.Name == "." {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "%q is not the name of a directory", v.Name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made[v.Name] {
		return nil
	}
	dir := filepath.Join(m.dir, v.Name)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	// As many files as its memory has room for: the kernel's default follows from what the
	// machine has, and this one has less than the host.
	options := fmt.Sprintf("size=%d,nr_inodes=0,mode=%o,uid=%d,gid=%d", min(v.Size, memorySize()), v.Mode&0o7777, v.UID, v.GID)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	m.made[v.Name] = true
	return nil
}

// reserve is how much memory, in bytes, a volume leaves for the guest itself: who fills one is
// told that there is no space, instead of meeting the end of the guest's memory.
const reserve = 64 << 20

// memorySize is that of the guest without the reserve, in bytes.
func memorySize() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil { // it has no errors but for a bad pointer
		return 0
	}
	total := int64(info.Totalram) * int64(info.Unit)
	return total - min(reserve, total/4)
}

// inMemory returns the path under which the OCI runtime finds what is at a path in the memory:
// a volume, or what target is then, a part of one.
func (m *memory) inMemory(rel, target string) (string, error) {
	name, below, part := strings.Cut(rel, "/")
	m.mu.Lock()
	made := m.made[name]
	m.mu.Unlock()
	if !made || !filepath.IsLocal(rel) || rel != filepath.Clean(rel) {
		return "", fmt.Errorf("use volume %s: it is not in memory", rel)
	}
	dir := filepath.Join(m.dir, name)
	if !part {
		return dir, nil
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("use volume %s: %w", name, err)
	}
	defer func() { _ = unix.Close(root) }()
	if err := makeBelow(root, below); err != nil {
		return "", fmt.Errorf("use %s of volume %s: %w", below, name, err)
	}
	if err := mountBelow(root, below, target); err != nil {
		return "", fmt.Errorf("use %s of volume %s: %w", below, name, err)
	}
	return target, nil
}

// makeBelow makes the directories of a path that are not there, as a kubelet does: with the
// mode that the volume has. Links that containers have put there are not followed.
func makeBelow(root int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}
	at := root
	for name := range strings.SplitSeq(path, "/") {
		err := unix.Mkdirat(at, name, st.Mode&0o777) // in the volume's group, where that has the bit
		made := err == nil
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return errors.Join(err, closeBelow(root, at))
		}
		next, err := unix.Openat2(at, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve})
		if err := errors.Join(err, closeBelow(root, at)); err != nil {
			return err
		}
		at = next
		if made { // without what the agent's mask has taken away
			if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", at), st.Mode&0o7777); err != nil {
				return errors.Join(err, closeBelow(root, at))
			}
		}
	}
	return closeBelow(root, at)
}

// closeBelow closes what was opened below a directory.
func closeBelow(root, fd int) error {
	if fd == root {
		return nil
	}
	return unix.Close(fd)
}
