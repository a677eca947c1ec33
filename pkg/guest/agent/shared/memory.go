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
	source, err := makeBelow(root, below)
	if err != nil {
		return "", fmt.Errorf("use %s of volume %s: %w", below, name, err)
	}
	defer func() { _ = unix.Close(source) }()
	if err := mountTree(source, target); err != nil {
		return "", fmt.Errorf("use %s of volume %s: %w", below, name, err)
	}
	return target, nil
}

// makeBelow makes the directories of a path that are not there, as a kubelet does: with the
// mode that the volume has. It returns what is at the path. Links that containers have put there
// are followed within the volume.
func makeBelow(root int, path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return -1, err
	}
	at := root
	for end := range len(path) + 1 {
		if end < len(path) && path[end] != '/' {
			continue
		}
		next, err := openBelow(root, path[:end])
		if errors.Is(err, unix.ENOENT) {
			next, err = makeAt(root, at, path[:end], st.Mode)
		}
		if at != root {
			err = errors.Join(err, unix.Close(at))
		}
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// makeAt makes the directory at a path below root. parent is what it is in.
func makeAt(root, parent int, path string, mode uint32) (int, error) {
	err := unix.Mkdirat(parent, filepath.Base(path), mode&0o777) // in the volume's group, where that has the bit
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	made := err == nil
	dir, err := openBelow(root, path)
	if err != nil || !made {
		return dir, err
	}
	// Without what the agent's mask has taken away.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", dir), mode&0o7777); err != nil {
		return -1, errors.Join(err, unix.Close(dir))
	}
	return dir, nil
}

// openBelow opens a path below root, by links as well, if these do not lead out of it.
func openBelow(root int, path string) (int, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.EXDEV) {
		err = fmt.Errorf("it leads out of the volume: %w", err)
	}
	return fd, err
}
