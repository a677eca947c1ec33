package exposure

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lookup finds files of a container by their paths in it, as the kernel would: ".." is the parent of
// the directory that the path has led to. No link leads out of the container.
type lookup struct {
	view   View
	root   *os.File
	mounts map[string]string   // destination to the path below the share, "" for what only the guest has
	trees  map[string]*os.File // by destination
	steps  int                 // of all walks
}

var (
	// errGuestOnly says that a path leads to where only the guest has files.
	errGuestOnly = errors.New("only the guest has files there")
	// errTooFar says that a lookup has used up its steps: an image must not keep the shim busy.
	errTooFar = errors.New("the path is too long to follow")
)

const (
	// maxLinks is the kernel's bound, for one path.
	maxLinks = 40
	// maxSteps is for one lookup: the mounts, and all that PATH names. Those of use take some hundred.
	maxSteps = 4096
)

func (e *Exposure) openFiles(ctx context.Context) (*lookup, error) {
	root, err := e.view.Tree(e.view.RootfsPath(), true)
	if err != nil {
		return nil, err
	}
	l := &lookup{view: e.view, root: root, mounts: make(map[string]string), trees: make(map[string]*os.File)}
	for i, m := range e.spec.Spec.Mounts {
		f, at, err := l.walk(ctx, filepath.Join("/", m.Destination))
		if err == nil {
			_ = f.Close()
		}
		switch {
		case errors.Is(err, errGuestOnly):
			continue // below another one of the guest's
		case errors.Is(err, errTooFar), ctx.Err() != nil:
			l.close()
			return nil, err
		}
		l.mounts[at] = e.paths[i]
	}
	return l, nil
}

func (l *lookup) close() {
	_ = l.root.Close()
	for _, tree := range l.trees {
		_ = tree.Close()
	}
}

// open opens a path without the right to read it.
func (l *lookup) open(ctx context.Context, path string) (*os.File, error) {
	f, _, err := l.walk(ctx, path)
	return f, err
}

// spend takes a step.
func (l *lookup) spend(ctx context.Context) error {
	if l.steps++; l.steps > maxSteps {
		return errTooFar
	}
	return ctx.Err()
}

// walk returns where a path leads as well, without links. Of what is not there that is what is
// known of it.
func (l *lookup) walk(ctx context.Context, path string) (*os.File, string, error) {
	w := &walk{lookup: l, places: []place{{at: "", file: l.root}}, rest: path, more: true}
	defer w.leave(0)
	for w.more {
		err := l.spend(ctx)
		if err == nil {
			err = w.step()
		}
		if err != nil {
			return nil, filepath.Join("/", w.at, w.rest), err
		}
	}
	last := w.last()
	at := filepath.Join("/", last.at)
	if last.file == nil {
		return nil, at, unix.ENOENT
	}
	f, err := dup(last.file)
	return f, at, err
}

// walk is on its way along a path.
type walk struct {
	*lookup

	places []place // from the root to where it is
	at     string  // the path of the last step
	rest   string
	more   bool // there is a rest, of which "" is one after a slash
	links  int
}

// place is a file, or a directory that the guest makes for the sake of a mount: that has none.
type place struct {
	at   string // its path, "" for the root
	file *os.File
	mine bool // to be closed by the walk
}

func (w *walk) last() place { return w.places[len(w.places)-1] }

// leave goes back until there are no more than some places.
func (w *walk) leave(most int) {
	for len(w.places) > most {
		if p := w.last(); p.mine {
			_ = p.file.Close()
		}
		w.places = w.places[:len(w.places)-1]
	}
}

// step goes one name on.
func (w *walk) step() error {
	var name string
	name, w.rest, w.more = strings.Cut(w.rest, "/")
	last := w.last()
	switch name {
	case "", ".", "..":
		w.at = last.at
		if !last.isDirectory() {
			return unix.ENOTDIR
		}
		if name == ".." {
			w.leave(max(1, len(w.places)-1))
		}
		return nil
	}
	w.at = last.at + "/" + name
	if len(w.at) > unix.PathMax {
		return errTooFar // as deep as this the walk has many files open
	}
	if tree, mounted, err := w.mounted(w.at); mounted || err != nil {
		if err == nil {
			w.places = append(w.places, place{at: w.at, file: tree})
		}
		return err
	}
	entry, err := openEntry(last.file, name)
	switch {
	case errors.Is(err, unix.ENOENT) && w.leadsToMount(w.at):
		w.places = append(w.places, place{at: w.at})
		return nil
	case err != nil:
		return err
	}
	if target, link := readLink(entry); link {
		_ = entry.Close()
		return w.follow(target)
	}
	w.places = append(w.places, place{at: w.at, file: entry, mine: true})
	return nil
}

// follow puts the target of a link before the rest of the path.
func (w *walk) follow(target string) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	if filepath.IsAbs(target) {
		w.leave(1)
	}
	if w.more {
		target += "/" + w.rest
	}
	w.rest, w.more = target, true
	return nil
}

func (p place) isDirectory() bool {
	if p.file == nil {
		return true
	}
	info, err := p.file.Stat()
	return err == nil && info.IsDir()
}

// mounted returns what is mounted at a path.
func (l *lookup) mounted(at string) (tree *os.File, ok bool, err error) {
	path, ok := l.mounts[at]
	if !ok {
		return nil, false, nil
	}
	if path == "" {
		return nil, false, errGuestOnly
	}
	if l.trees[at] == nil {
		if l.trees[at], err = l.view.Tree(path, true); err != nil {
			delete(l.trees, at)
			return nil, false, err
		}
	}
	return l.trees[at], true, nil
}

// leadsToMount reports whether the guest makes a directory for the sake of a mount below it.
func (l *lookup) leadsToMount(at string) bool {
	for destination := range l.mounts {
		if strings.HasPrefix(destination, at+"/") {
			return true
		}
	}
	return false
}

func openEntry(dir *os.File, name string) (*os.File, error) {
	if dir == nil {
		return nil, unix.ENOENT
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readLink returns the target of a link that is open, and whether it is one.
func readLink(f *os.File) (string, bool) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", false
	}
	return string(buf[:n]), true
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
