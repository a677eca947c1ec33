package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
)

// volumesDir has what may be exposed to more than one container. No container
// has such a name.
const volumesDir = ".volumes"

// volumes are the bind mounts of all containers of a sandbox. What is the same
// for the guest is exposed to it once: under two mounts its kernel would have two
// file systems, and with them two inodes for every file, two page caches, two
// sets of locks, and sockets that only one side can connect to.
type volumes struct {
	guest *guestMounts

	mu      sync.Mutex // guards the fields below, and refs of all volumes
	count   int        // volumes so far, for their names
	exposed map[mountKey]*volume
}

// volume is one bind mount.
type volume struct {
	key   mountKey
	place place
	name  string        // below its directory
	file  bool          // not a directory; valid after done
	root  int           // the mount, O_PATH; valid after done
	done  chan struct{} // closed when it is exposed, or could not be
	err   error         // valid after done
	refs  int           // uses of it

	mu       sync.Mutex // guards the fields below; held while the mount is changed
	writers  int        // uses that may write
	readOnly bool       // until there is a writer
}

// fileName is the name of a file that is a volume. It has a directory of its
// own, which makes it a file system of its own in the guest.
const fileName = "file"

// dir is the directory of the volume below the share.
func (vol *volume) dir() string {
	if vol.key.live != "" {
		return filepath.Join(vol.key.live, vol.name)
	}
	return filepath.Join(volumesDir, vol.name)
}

// path is where the volume is below the share.
func (vol *volume) path() string {
	if vol.file {
		return filepath.Join(vol.dir(), fileName)
	}
	return vol.dir()
}

// use is a container's use of a volume.
type use struct {
	vol    *volume
	rel    string // what the container has of it; "" for all
	writes bool
}

// path is where the container finds its files below the share.
func (u use) path() string { return filepath.Join(u.vol.path(), u.rel) }

func newVolumes(guest *guestMounts) *volumes {
	return &volumes{guest: guest, exposed: make(map[mountKey]*volume)}
}

// acquire exposes a bind mount, unless it is exposed already. With guard the
// guest must keep the container from writing: another one may. The caller must
// release the use.
func (v *volumes) acquire(b Bind) (u use, guard bool, err error) {
	src, err := openSource(b)
	if err != nil {
		return use{}, false, fmt.Errorf("share %s: %w", b.Source, err)
	}
	defer src.close()
	u, err = v.find(src)
	if err != nil {
		return use{}, false, fmt.Errorf("share %s: %w", b.Source, err)
	}
	plain := u.vol.key.plain()
	if u.writes = plain && b.Access == WriteAll; u.writes {
		if err := v.addWriter(u.vol); err != nil {
			u.writes = false
			return use{}, false, fmt.Errorf("share %s: %w", b.Source, errors.Join(err, v.release(u)))
		}
	}
	return u, plain && b.Access != WriteAll, nil
}

// find returns the volume that has the source, which may have to be exposed.
func (v *volumes) find(src *source) (use, error) {
	if vol := v.claim(src.key); vol != nil {
		return use{vol: vol}, v.await(vol)
	}
	if src.bind.Within {
		if u, ok := v.findWithin(src); ok {
			return u, nil
		}
		if outer, rel := src.emptyDir(); outer != nil {
			defer outer.close()
			vol, err := v.expose(outer)
			return use{vol: vol, rel: rel}, err
		}
	}
	vol, err := v.expose(src)
	return use{vol: vol}, err
}

// findWithin looks for a volume that the source is below.
func (v *volumes) findWithin(src *source) (use, bool) {
	for _, key := range v.outer(src) {
		vol := v.claim(key)
		if vol == nil || v.await(vol) != nil {
			continue
		}
		if rel, ok := src.place.within(vol.place); ok && !vol.file && src.isAt(vol.root, rel) {
			return use{vol: vol, rel: rel}, true
		}
		_ = v.release(use{vol: vol}) // what is left is released with the share
	}
	return use{}, false
}

// outer returns the keys of the volumes that may have the source below them, the
// outermost first.
func (v *volumes) outer(src *source) []mountKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []*volume
	for key, vol := range v.exposed {
		if _, ok := src.place.within(vol.place); ok && key.canContain(src.key) {
			found = append(found, vol)
		}
	}
	slices.SortFunc(found, func(a, b *volume) int { return len(a.place.path) - len(b.place.path) })
	keys := make([]mountKey, 0, len(found))
	for _, vol := range found {
		keys = append(keys, vol.key)
	}
	return keys
}

// claim counts one more user of the volume with a key, nil when there is none.
func (v *volumes) claim(key mountKey) *volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := v.exposed[key]
	if vol != nil {
		vol.refs++
	}
	return vol
}

// await waits until a volume that was claimed is exposed. After an error it is
// not claimed any longer.
func (v *volumes) await(vol *volume) error {
	<-vol.done
	if vol.err != nil {
		v.drop(vol)
	}
	return vol.err
}

// expose claims a volume, and exposes it when nobody has meanwhile.
func (v *volumes) expose(src *source) (*volume, error) {
	v.mu.Lock()
	vol := v.exposed[src.key]
	first := vol == nil
	if first {
		vol = &volume{key: src.key, place: src.place, name: strconv.Itoa(v.count), root: -1, done: make(chan struct{})}
		v.count++
		v.exposed[src.key] = vol
	}
	vol.refs++
	v.mu.Unlock()
	if first {
		vol.root = src.takeTree()
		if vol.err = v.mount(vol, src.bind); vol.err != nil {
			_ = unix.Close(vol.root)
		}
		close(vol.done)
	}
	return vol, v.await(vol)
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

// mount puts a copy of mounts in place: a file is exposed alone, without its
// directory.
//
// The mount is made, protected and only then put in place, where the guest sees
// it.
func (v *volumes) mount(vol *volume, b Bind) error {
	access := vol.key.access
	if vol.key.plain() {
		access = b.Access
		vol.readOnly = access != WriteAll
	}
	if err := protect(vol.root, access, vol.key.follow); err != nil {
		return err
	}
	if err := vol.key.ids.apply(vol.root); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(vol.root, &st); err != nil {
		return err
	}
	vol.file = st.Mode&unix.S_IFMT != unix.S_IFDIR
	dir := v.guest.host(vol.dir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := v.attach(vol); err != nil {
		return errors.Join(err, v.remove(vol))
	}
	return nil
}

// attach puts a volume where the guest sees it.
func (v *volumes) attach(vol *volume) error {
	if vol.file {
		f, err := os.OpenFile(v.guest.host(vol.path()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Close(), v.guest.isolate(vol.dir())); err != nil {
			return err
		}
	}
	return v.guest.attach(vol.root, vol.path())
}

// addWriter lets the guest write.
func (v *volumes) addWriter(vol *volume) error {
	vol.mu.Lock()
	defer vol.mu.Unlock()
	vol.writers++
	if !vol.readOnly || vol.key.flags&unix.ST_RDONLY != 0 { // the host's own "read-only" stays
		return nil
	}
	if err := v.guest.setReadOnly(vol.path(), false); err != nil {
		return fmt.Errorf("make writable: %w", err)
	}
	vol.readOnly = false
	return nil
}

// removeWriter makes the volume read-only after its last writer. While the
// guest still has a file open for writing that cannot be, and then it stays as it
// is: the containers that are left cannot write, their mounts are read-only.
func (v *volumes) removeWriter(vol *volume) error {
	vol.mu.Lock()
	defer vol.mu.Unlock()
	vol.writers--
	if vol.writers > 0 || vol.readOnly {
		return nil
	}
	err := v.guest.setReadOnly(vol.path(), true)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, errNoMounts) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	vol.readOnly = true
	return nil
}

// release ends a container's use of a volume.
func (v *volumes) release(u use) error {
	if !v.drop(u.vol) {
		if u.writes {
			return v.removeWriter(u.vol)
		}
		return nil
	}
	return errors.Join(unix.Close(u.vol.root), v.remove(u.vol))
}

// remove takes a volume out of the share.
func (v *volumes) remove(vol *volume) error {
	if err := v.guest.detach(vol.dir()); err != nil {
		return err // what is mounted must not be deleted
	}
	return mounts.RemoveTree(v.guest.host(vol.dir()))
}
