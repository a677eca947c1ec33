package share

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountKey is all in which bind mounts can differ: two with the same key can be
// one.
type mountKey struct {
	dev, ino uint64 // of its root
	flags    int64  // of the host's mount
	access   Access // WriteAll for a plain one, whose access changes with its users
	ids      IDMap
	deep     bool
	follow   bool
	below    string // the host's mounts below it
	peers    string // where later mounts come from
	live     string // the directory of the share that has it; "" is [volumesDir]
	mapped   int    // the host's mount, when that maps ids: in which way cannot be read
}

// plain reports whether there is one mount alone: then the guest's kernel can
// keep a container from writing exactly where the host would.
func (k mountKey) plain() bool { return k.below == "" && !k.follow }

// source is what a [Bind] asks for.
type source struct {
	bind  Bind
	fd    int // O_PATH
	tree  int // a copy of its mounts, mounted nowhere yet
	key   mountKey
	place place
	table []*mountinfo.Info // the host's mounts
}

// place is where something is in its file system. Bind mounts of one directory
// have one place, whatever their paths are.
type place struct {
	fs   string // its device in the table of mounts; "" when the place is not known
	path string // from the root of the file system
}

// within returns the path from one place to another that is below it.
func (p place) within(outer place) (rel string, ok bool) {
	if p.fs == "" || p.fs != outer.fs {
		return "", false
	}
	return cutDir(p.path, outer.path)
}

// cutDir returns the path from a directory to something below it.
func cutDir(path, dir string) (rel string, ok bool) {
	rel, ok = strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	if !ok || rel == "" {
		return "", false
	}
	return rel, true
}

// openSource opens what a bind asks for. The caller closes it.
func openSource(b Bind) (*source, error) {
	fd, err := unix.Open(b.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	tree, err := cloneMounts(fd, "", b.Deep)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	src := &source{bind: b, fd: fd, tree: tree}
	if err := src.inspect(); err != nil {
		src.close()
		return nil, fmt.Errorf("inspect: %w", err)
	}
	return src, nil
}

func (s *source) close() {
	_ = unix.Close(s.fd)
	if s.tree >= 0 {
		_ = unix.Close(s.tree)
	}
}

// takeTree gives the copy of the mounts to the caller, who closes it.
func (s *source) takeTree() int {
	tree := s.tree
	s.tree = -1
	return tree
}

// inspect finds out the key and the place.
func (s *source) inspect() error {
	var st unix.Statx_t
	if err := unix.Statx(s.fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.tree, &fs); err != nil {
		return err
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(s.fd))
	if err != nil {
		return err
	}
	if s.table, err = mountinfo.GetMounts(nil); err != nil {
		return err
	}
	b := s.bind
	s.key = mountKey{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, flags: fs.Flags,
		access: b.Access, ids: b.IDs, deep: b.Deep, follow: b.Follow, live: b.Live,
	}
	var below strings.Builder
	for _, m := range s.table {
		if uint64(m.ID) == st.Mnt_id {
			s.setMount(m, path)
		}
		if rest, ok := cutDir(m.Mountpoint, path); b.Deep && ok {
			fmt.Fprintf(&below, "%q %d:%d %q %s %d\n", rest, m.Major, m.Minor, m.Root, m.Options, mapsIDs(m))
		}
	}
	s.key.below = below.String()
	s.key.simplify()
	return nil
}

// setMount takes over what matters of the mount that has the path.
func (s *source) setMount(m *mountinfo.Info, path string) {
	s.key.mapped = mapsIDs(m)
	if s.bind.Follow {
		s.key.peers = m.Optional
	}
	rel, ok := cutDir(path, m.Mountpoint)
	if ok || path == m.Mountpoint {
		s.place = place{fs: device(m), path: filepath.Join(m.Root, rel)}
	}
}

// simplify drops distinctions without a difference.
func (k *mountKey) simplify() {
	k.follow = k.follow && k.peers != "" // a private mount gets nothing from the host
	if k.below == "" {
		k.deep, k.ids.Deep = false, false
	}
	if k.plain() {
		k.access = WriteAll
	}
}

func device(m *mountinfo.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// mapsIDs is the id of a mount that maps ids, and 0 for others.
func mapsIDs(m *mountinfo.Info) int {
	if slices.Contains(strings.Split(m.Options, ","), "idmapped") {
		return m.ID
	}
	return 0
}
