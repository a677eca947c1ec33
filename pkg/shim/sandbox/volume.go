package sandbox

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

// volumesDir holds what is shown to more than one container. No container has
// such a name.
const volumesDir = ".volumes"

// volumes are the bind mounts of all containers of a sandbox. What two containers
// mount in the same way is shown to the guest once: under two mounts its kernel
// would have two inodes for every file, and with them two page caches, two sets
// of locks, and sockets that only one side can connect to.
type volumes struct {
	mounts *guestMounts

	mu    sync.Mutex // guards the fields below, and refs of all volumes
	count int        // volumes so far, for their names
	shown map[look]*volume
}

// volume is one bind mount.
type volume struct {
	look look
	name string        // below volumesDir
	done chan struct{} // closed when it was shown, or failed to be
	err  error         // valid after done
	refs int           // containers that use it
}

// look is all that can be told apart about a bind mount: two with the same one
// can be one.
type look struct {
	dev, ino uint64 // of its root
	flags    int64  // of the host's mount
	access   writable
	ids      idMap
	deep     bool
	follow   bool
	below    string // the host's mounts below it
	peers    string // where later mounts come from
	mapped   int    // the host's mount, when that maps ids: in which way does not show
}

func (s *Sandbox) newVolumes() *volumes {
	return &volumes{mounts: s.guestMounts, shown: make(map[look]*volume)}
}

// lookOf looks at what would be shown; tree is a copy of its mounts.
func lookOf(b bind, source, tree int) (look, error) {
	var st unix.Statx_t
	if err := unix.Statx(source, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return look{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(tree, &fs); err != nil {
		return look{}, err
	}
	l := look{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, flags: fs.Flags,
		access: b.access, ids: b.ids, deep: b.deep, follow: b.follow,
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(source))
	if err != nil {
		return look{}, err
	}
	path = strings.TrimSuffix(path, "/") // it is / alone that ends in one
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return look{}, err
	}
	var below strings.Builder
	for _, m := range mounts {
		if uint64(m.ID) == st.Mnt_id {
			l.mapped = mapsIDs(m)
			if b.follow {
				l.peers = m.Optional
			}
		}
		if rest, ok := strings.CutPrefix(m.Mountpoint, path+"/"); b.deep && ok && rest != "" {
			fmt.Fprintf(&below, "%q %d:%d %q %s %d\n", rest, m.Major, m.Minor, m.Root, m.Options, mapsIDs(m))
		}
	}
	l.below = below.String()
	return l, nil
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
func (l look) guarded() bool { return l.access == writeBelow && l.below == "" && !l.follow }

// show shows a bind mount, or finds that it is shown. With guard the guest must
// keep the container from writing: it has the mount for another one, which may.
// The caller must give the volume back.
func (v *volumes) show(b bind) (_ *volume, guard bool, err error) {
	source, err := unix.Open(b.source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: %w", b.source, err)
	}
	defer func() { _ = unix.Close(source) }()
	tree, err := cloneMounts(source, "", b.deep)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: %w", b.source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	l, err := lookOf(b, source, tree)
	if err != nil {
		return nil, false, fmt.Errorf("share %s: look at it: %w", b.source, err)
	}
	vol, first := v.claim(l)
	if first {
		vol.err = v.mount(vol, tree)
		close(vol.done)
	}
	<-vol.done
	if vol.err != nil {
		v.drop(vol)
		return nil, false, fmt.Errorf("share %s: %w", b.source, vol.err)
	}
	return vol, vol.look.access != l.access, nil
}

// claim counts one more user of a volume. The first one has to show it.
func (v *volumes) claim(l look) (_ *volume, first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := v.shown[l]
	if writable := l; vol == nil && l.guarded() {
		writable.access = writeAll
		vol = v.shown[writable]
	}
	if vol == nil {
		vol = &volume{look: l, name: strconv.Itoa(v.count), done: make(chan struct{})}
		v.count++
		v.shown[l] = vol
		first = true
	}
	vol.refs++
	return vol, first
}

// drop counts one user less, and reports whether it was the last one.
func (v *volumes) drop(vol *volume) (last bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol.refs--
	if last = vol.refs == 0 || vol.err != nil; last && v.shown[vol.look] == vol {
		delete(v.shown, vol.look)
	}
	return last
}

// mount shows a copy of mounts as a volume: a file is shown alone, without its
// directory.
//
// The mount is made, protected and only then put in place, where the guest sees
// it.
func (v *volumes) mount(vol *volume, tree int) error {
	if err := protect(tree, vol.look.access, vol.look.follow); err != nil {
		return err
	}
	if err := vol.look.ids.apply(tree); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	path := filepath.Join(volumesDir, vol.name)
	target := v.mounts.host(path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := v.mounts.attach(tree, path); err != nil {
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

// giveBack ends a container's use of a volume.
func (v *volumes) giveBack(vol *volume) error {
	if !v.drop(vol) {
		return nil
	}
	path := filepath.Join(volumesDir, vol.name)
	if err := v.mounts.detach(path); err != nil {
		return err // what is mounted must not be deleted
	}
	return mounts.RemoveTree(v.mounts.host(path))
}
