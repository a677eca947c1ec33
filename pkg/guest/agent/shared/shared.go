package shared

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Table has the containers' uses of the share. It is safe for concurrent use.
type Table struct {
	share  string // where the share is mounted
	memory memory
	dir    string // one directory for each container: what it has of a submount

	mu         sync.Mutex // guards the fields below
	submounts  map[string]*submount
	containers map[string][]*submount
}

// submount is a file system of the host below the share: the root of a
// container, or a volume.
type submount struct {
	path string // below the share
	uses int
	gone chan struct{} // closed when it is unmounted; nil while it is in use
	live *live         // its copy; nil for most
}

// New returns a table for the share that is, or will be, mounted at share. Below
// dir it mounts parts of it for containers, and below memoryDir the volumes that are there.
func New(share, dir, memoryDir string) *Table {
	return &Table{share: share, dir: dir, memory: memory{dir: memoryDir, made: make(map[string]bool)}, submounts: make(map[string]*submount), containers: make(map[string][]*submount)}
}

// Acquire prepares what a container's specification, decoded to its first level,
// names below the share, and replaces paths in it. [Table.Release] ends that, also
// after an error. It is called once for a container.
func (t *Table) Acquire(container string, spec map[string]json.RawMessage) error {
	var root struct {
		Path string `json:"path"`
	}
	var mounts []map[string]json.RawMessage
	if err := decode(spec["root"], &root); err != nil {
		return err
	}
	if err := decode(spec["mounts"], &mounts); err != nil {
		return err
	}
	if _, err := t.acquire(container, root.Path, 0); err != nil {
		return err
	}
	changed := false
	for i, m := range mounts {
		var source string
		if err := decode(m["source"], &source); err != nil {
			return err
		}
		path, err := t.acquire(container, source, i)
		if err != nil {
			return err
		}
		if path != source {
			changed = true
			if m["source"], err = json.Marshal(path); err != nil {
				return err
			}
		}
	}
	if !changed {
		return nil
	}
	var err error
	spec["mounts"], err = json.Marshal(mounts)
	return err
}

func decode(raw json.RawMessage, v any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("decode spec: %w", err)
	}
	return nil
}

// acquire returns the path under which the OCI runtime finds what is at path.
func (t *Table) acquire(container, path string, n int) (string, error) {
	if rel, ok := strings.CutPrefix(path, t.memory.dir+"/"); ok {
		return t.memory.inMemory(rel, filepath.Join(t.dir, container, strconv.Itoa(n)))
	}
	rel, ok := strings.CutPrefix(path, t.share+"/")
	if !ok {
		return path, nil
	}
	point, below, ok := split(rel)
	if !ok {
		return "", fmt.Errorf("use %s: not a path of the share", path)
	}
	t.claim(container, point)
	if isLive(point) && below == "" {
		return t.liveOf(point)
	}
	root, err := t.open(point)
	if err != nil {
		return "", fmt.Errorf("use %s: %w", path, err)
	}
	defer func() { _ = unix.Close(root) }()
	if below == "" {
		return path, nil
	}
	target := filepath.Join(t.dir, container, strconv.Itoa(n))
	if err := mountBelow(root, below, target); err != nil {
		return "", fmt.Errorf("use %s: %w", path, err)
	}
	return target, nil
}

// split takes a path of the share apart: <container>/rootfs, .volumes/<n> and .live/<n>
// are file systems. A path of one part is one at most.
func split(rel string) (point, below string, ok bool) {
	if !filepath.IsLocal(rel) || rel == "." || rel != filepath.Clean(rel) {
		return "", "", false
	}
	first, rest, _ := strings.Cut(rel, "/")
	second, below, _ := strings.Cut(rest, "/")
	return filepath.Join(first, second), below, true
}

// claim notes a container's use of a submount.
func (t *Table) claim(container, point string) {
	for {
		t.mu.Lock()
		s := t.submounts[point]
		if s == nil {
			s = &submount{path: point}
			t.submounts[point] = s
		}
		gone := s.gone
		if gone == nil {
			s.uses++
			t.containers[container] = append(t.containers[container], s)
		}
		t.mu.Unlock()
		if gone == nil {
			return
		}
		<-gone
	}
}

// resolve are the flags for paths that containers may have changed.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// open opens a submount, which mounts it.
func (t *Table) open(point string) (int, error) {
	share, err := unix.Open(t.share, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(share) }()
	// The kernel mounts what shall be a directory; it would leave alone what
	// could be a file.
	return unix.Openat2(share, point, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
}

// mountBelow mounts what is at a path below a directory.
func mountBelow(root int, path, target string) error {
	source, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(source) }()
	return mountTree(source, target)
}

// mountTree mounts what is open at a path that is not there yet.
func mountTree(source int, target string) error {
	var st unix.Stat_t
	err := unix.Fstat(source, &st)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return unix.ELOOP
	case unix.S_IFDIR:
		err = os.MkdirAll(target, 0o755)
	default:
		if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
			err = os.WriteFile(target, nil, 0o600)
		}
	}
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(source, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// Release ends a container's uses. It is idempotent.
func (t *Table) Release(container string) error {
	errs := []error{t.unmountBelow(container)}
	for _, s := range t.unused(container) {
		if s.live != nil {
			errs = append(errs, s.live.close())
		}
		err := unix.Unmount(filepath.Join(t.share, s.path), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		// EINVAL: the share's server does not tell file systems apart. ENOENT: the
		// host has removed the directory.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", s.path, err))
		}
		t.mu.Lock()
		delete(t.submounts, s.path)
		t.mu.Unlock()
		close(s.gone)
	}
	return errors.Join(errs...)
}

// unused ends a container's uses and returns the submounts without any other,
// which the caller unmounts.
func (t *Table) unused(container string) []*submount {
	t.mu.Lock()
	defer t.mu.Unlock()
	var unused []*submount
	for _, s := range t.containers[container] {
		if s.uses--; s.uses == 0 {
			s.gone = make(chan struct{})
			unused = append(unused, s)
		}
	}
	delete(t.containers, container)
	return unused
}

// unmountBelow removes a container's directory.
func (t *Table) unmountBelow(container string) error {
	dir := filepath.Join(t.dir, container)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil || errors.Is(err, unix.EINVAL) {
			err = os.Remove(path) // never with what is mounted there
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}
