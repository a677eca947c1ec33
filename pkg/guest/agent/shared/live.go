package shared

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// The names in a volume of [hyperstart.LiveVolumes], as a kubelet writes it: a link to
// the directory that has the files, what that is before it is renamed, and what all other
// links lead through.
const (
	dataLink    = "..data"
	dataLinkNew = "..data_tmp"
)

// liveSize bounds a copy. A kubelet's volume has at most 1 MiB of each of its sources.
const liveSize = "size=64m"

// staleFor is how long the kernel may have an old link in mind.
const staleFor = 2 * time.Second

// live is the copy of a volume that the host changes. Programs that watch it see what
// they would see of the volume itself: the host's changes of that raise no events here.
type live struct {
	source string // the volume, below the share
	dir    string // the copy, a file system of its own

	mu   sync.Mutex // guards data, and is held while the copy is made
	data string     // where the link leads in the copy; "" when there is none yet
}

// isLive reports whether a submount is a volume that is copied.
func isLive(point string) bool { return filepath.Dir(point) == hyperstart.LiveVolumes }

// liveOf returns the path of the copy of a volume, which the caller has claimed. The first one
// makes it.
func (t *Table) liveOf(point string) (string, error) {
	t.mu.Lock()
	s := t.submounts[point]
	if s.live == nil {
		s.live = &live{source: filepath.Join(t.share, point), dir: filepath.Join(t.dir, point)}
	}
	l := s.live
	t.mu.Unlock()
	return l.dir, l.make()
}

// RefreshVolume brings the copy of a volume up to date: its link leads to data now.
func (t *Table) RefreshVolume(_ context.Context, req hyperstart.RefreshVolumeRequest) error {
	if !strings.HasPrefix(req.Data, "..") || filepath.Base(req.Data) != req.Data || req.Data == ".." || req.Data == dataLink || req.Data == dataLinkNew {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "refresh volume %s: %q is not the name of a directory of it", req.Volume, req.Data)
	}
	t.mu.Lock()
	var l *live
	if s := t.submounts[req.Volume]; s != nil && s.gone == nil {
		l = s.live
	}
	t.mu.Unlock()
	if l == nil {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "refresh volume %s: there is no copy of it", req.Volume)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.data == "" {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "refresh volume %s: there is no copy of it", req.Volume)
	}
	if err := l.copy(req.Data); err != nil {
		return fmt.Errorf("refresh volume %s: %w", req.Volume, err)
	}
	return nil
}

// make makes the copy, unless there is one. The host may change the volume meanwhile, and
// remove what the link led to.
func (l *live) make() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.data != "" {
		return nil
	}
	if err := l.mount(); err != nil {
		return errors.Join(fmt.Errorf("copy volume: %w", err), l.unmount())
	}
	for end := time.Now().Add(staleFor); ; {
		data, err := os.Readlink(filepath.Join(l.source, dataLink))
		if err == nil {
			err = l.copy(data)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return errors.Join(fmt.Errorf("copy volume: %w", err), l.unmount())
		}
		<-time.After(staleFor / 20)
	}
}

// mount makes the empty copy.
func (l *live) mount() error {
	var st unix.Stat_t
	if err := unix.Stat(l.source, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("%s,mode=%o,uid=%d,gid=%d", liveSize, st.Mode&0o7777, st.Uid, st.Gid)
	return unix.Mount("tmpfs", l.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
}

// close removes the copy, and ends its refreshes. Containers that still have it mounted keep it.
func (l *live) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = ""
	return l.unmount()
}

func (l *live) unmount() error {
	err := unix.Unmount(l.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the copy of a volume: %w", err)
	}
	if err := os.Remove(l.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copy makes the copy that of a directory of the volume, in the steps of a kubelet and in
// its order: what others see of the copy is the old files or the new ones. Links of a
// container that may write here are not followed.
func (l *live) copy(data string) error {
	if data == l.data {
		return nil
	}
	to, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	// What a refresh that failed has left is made anew.
	if err := to.RemoveAll(data); err != nil {
		return err
	}
	if err := copyTree(to, filepath.Join(l.source, data), data); err != nil {
		return errors.Join(err, to.RemoveAll(data))
	}
	if err := to.RemoveAll(dataLinkNew); err != nil {
		return err
	}
	if err := to.Symlink(data, dataLinkNew); err != nil {
		return err
	}
	if err := to.Rename(dataLinkNew, dataLink); err != nil {
		return err
	}
	if err := linkNames(to, data, l.data); err != nil {
		return err
	}
	l.data = data
	return nil
}

// linkNames makes the links to what is in the new directory, removes those to what only the
// old one had, and the old one. What else is there belongs to a container: a place
// for another mount.
func linkNames(to *os.Root, data, old string) error {
	names, err := fs.ReadDir(to.FS(), data)
	if err != nil {
		return err
	}
	is := make(map[string]bool)
	var errs []error
	for _, e := range names {
		is[e.Name()] = true
		if _, err := to.Lstat(e.Name()); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, to.Symlink(filepath.Join(dataLink, e.Name()), e.Name()))
		}
	}
	if old == "" {
		return errors.Join(errs...)
	}
	before, err := fs.ReadDir(to.FS(), old)
	if !errors.Is(err, fs.ErrNotExist) { // an earlier refresh has removed it, and failed
		errs = append(errs, err)
	}
	for _, e := range before {
		if !is[e.Name()] {
			errs = append(errs, to.Remove(e.Name()))
		}
	}
	return errors.Join(append(errs, to.RemoveAll(old))...)
}

// copyTree copies a directory of the host into a new one.
func copyTree(to *os.Root, from, name string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(name, rel)
		switch info.Mode().Type() {
		case fs.ModeDir:
			err = to.Mkdir(target, 0o700)
		case fs.ModeSymlink:
			var link string
			if link, err = os.Readlink(path); err == nil {
				err = to.Symlink(link, target)
			}
		case 0:
			err = copyFile(to, path, target)
		default:
			err = fmt.Errorf("%s is neither file nor directory: %w", rel, errors.ErrUnsupported)
		}
		if err != nil {
			return err
		}
		return copyAttributes(to, target, info)
	})
}

func copyFile(to *os.Root, path, target string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	f, err := to.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// copyAttributes copies owner, mode and time.
func copyAttributes(to *os.Root, target string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := to.Lchown(target, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil
	}
	if err := to.Chmod(target, info.Mode()); err != nil { // after the owner, which clears bits of it
		return err
	}
	return to.Chtimes(target, info.ModTime(), info.ModTime())
}
