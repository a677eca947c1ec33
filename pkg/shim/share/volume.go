package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
)

// volumesDir has what may be exposed to more than one container. No container
// has such a name.
const volumesDir = ".volumes"

// volumes are the bind mounts of all containers of a sandbox. What two containers
// mount in the same way is exposed to the guest once: under two mounts its kernel
// would have two inodes for every file, and with them two page caches, two sets
// of locks, and sockets that only one side can connect to.
type volumes struct {
	guest *guestMounts

	mu      sync.Mutex // guards the fields below, and refs of all volumes
	count   int        // volumes so far, for their names
	exposed map[mountKey]*volume
}

// volume is one bind mount.
type volume struct {
	key  mountKey
	name string        // below volumesDir
	done chan struct{} // closed when it is exposed, or could not be
	err  error         // valid after done
	refs int           // containers that use it
}

// path is where the volume is below the share.
func (vol *volume) path() string { return filepath.Join(volumesDir, vol.name) }

// mountKey is all in which bind mounts can differ: two with the same key can be
// one.
type mountKey struct {
	dev, ino uint64 // of its root
	flags    int64  // of the host's mount
	access   Access
	ids      IDMap
	deep     bool
	follow   bool
	below    string // the host's mounts below it
	peers    string // where later mounts come from
	mapped   int    // the host's mount, when that maps ids: in which way cannot be read
}

func newVolumes(guest *guestMounts) *volumes {
	return &volumes{guest: guest, exposed: make(map[mountKey]*volume)}
}

// keyOf returns the key of what would be exposed; tree is a copy of its mounts.
func keyOf(b Bind, source, tree int) (mountKey, error) {
	var st unix.Statx_t
	if err := unix.Statx(source, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return mountKey{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(tree, &fs); err != nil {
		return mountKey{}, err
	}
	key := mountKey{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, flags: fs.Flags,
		access: b.Access, ids: b.IDs, deep: b.Deep, follow: b.Follow,
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(source))
	if err != nil {
		return mountKey{}, err
	}
	path = strings.TrimSuffix(path, "/") // it is / alone that ends in one
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return mountKey{}, err
	}
	var below strings.Builder
	for _, m := range mounts {
		if uint64(m.ID) == st.Mnt_id {
			key.mapped = mapsIDs(m)
			if b.Follow {
				key.peers = m.Optional
			}
		}
		if rest, ok := strings.CutPrefix(m.Mountpoint, path+"/"); b.Deep && ok && rest != "" {
			fmt.Fprintf(&below, "%q %d:%d %q %s %d\n", rest, m.Major, m.Minor, m.Root, m.Options, mapsIDs(m))
		}
	}
	key.below = below.String()
	return key, nil
}

// mapsIDs is the id of a mount that maps ids, and 0 for others.
func mapsIDs(m *mountinfo.Info) int {
	if slices.Contains(strings.Split(m.Options, ","), "idmapped") {
		return m.ID
	}
	return 0
}

// guarded reports whether the guest's kernel can keep a container from writing
// exactly where the host would.
func (k mountKey) guarded() bool { return k.access == WriteBelow && k.below == "" && !k.follow }

// acquire exposes a bind mount, unless it is exposed already. With guard the
// guest must keep the container from writing: the mount is there for another
// one, which may. The caller must release the volume.
func (v *volumes) acquire(b Bind) (_ *volume, guard bool, err error) {
	source, err := unix.Open(b.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: %w", b.Source, err)
	}
	defer func() { _ = unix.Close(source) }()
	tree, err := cloneMounts(source, "", b.Deep)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: %w", b.Source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	key, err := keyOf(b, source, tree)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: inspect: %w", b.Source, err)
	}
	vol, first := v.claim(key)
	if first {
		vol.err = v.mount(vol, tree)
		close(vol.done)
	}
	<-vol.done
	if vol.err != nil {
		v.drop(vol)
		return nil, false, fmt.Errorf("share %s: %w", b.Source, vol.err)
	}
	return vol, vol.key.access != key.access, nil
}

// claim counts one more user of a volume. The first one has to expose it.
func (v *volumes) claim(key mountKey) (_ *volume, first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := v.exposed[key]
	if writable := key; vol == nil && key.guarded() {
		writable.access = WriteAll
		vol = v.exposed[writable]
	}
	if vol == nil {
		vol = &volume{key: key, name: strconv.Itoa(v.count), done: make(chan struct{})}
		v.count++
		v.exposed[key] = vol
		first = true
	}
	vol.refs++
	return vol, first
}

// drop counts one user less and reports whether it was the last one.
func (v *volumes) drop(vol *volume) (last bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol.refs--
	if last = vol.refs == 0 || vol.err != nil; last && v.exposed[vol.key] == vol {
		delete(v.exposed, vol.key)
	}
	return last
}

// mount exposes a copy of mounts as a volume: a file is exposed alone, without its
// directory.
//
// The mount is made, protected and only then put in place, where the guest sees
// it.
func (v *volumes) mount(vol *volume, tree int) error {
	if err := protect(tree, vol.key.access, vol.key.follow); err != nil {
		return err
	}
	if err := vol.key.ids.apply(tree); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	path := vol.path()
	target := v.guest.host(path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := v.guest.attach(tree, path); err != nil {
		return errors.Join(err, mounts.RemoveTree(target))
	}
	return nil
}

func makeTarget(path string, dir bool) error {
	if dir {
		return os.Mkdir(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// release ends a container's use of a volume.
func (v *volumes) release(vol *volume) error {
	if !v.drop(vol) {
		return nil
	}
	path := vol.path()
	if err := v.guest.detach(path); err != nil {
		return err // what is mounted must not be deleted
	}
	return mounts.RemoveTree(v.guest.host(path))
}
