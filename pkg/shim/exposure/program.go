package exposure

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// Exit statuses of a shell for a program that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// FindProgram says why the program of a process cannot be run, in runc's words, as far as the
// container's files tell on the host. What lies in a mount that only the guest has is not judged.
func (e *Exposure) FindProgram(p *specs.Process) error {
	l, err := e.openFiles()
	if err != nil {
		return fmt.Errorf("look for program %q: %w", p.Args[0], err)
	}
	defer l.close()
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return l.judge(name, join(p.Cwd, name))
	}
	dirs, ok := searchPath(p.Env)
	if !ok {
		return nil // the guest has a path of its own
	}
	for _, dir := range dirs {
		err := l.judge(name, filepath.Join(join(p.Cwd, dir), name))
		if _, refused := client.ExitStatus(err); !refused {
			return err
		}
	}
	return client.CannotRun(exitNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", name))
}

func join(cwd, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join("/", cwd, name)
}

func searchPath(env []string) (dirs []string, ok bool) {
	for _, e := range env {
		if path, found := strings.CutPrefix(e, "PATH="); found {
			dirs, ok = filepath.SplitList(path), true
		}
	}
	return dirs, ok
}

// judge refuses the program called name at a path.
func (l *lookup) judge(name, path string) error {
	f, err := l.open(path)
	var why string
	status := uint8(exitNotExecutable)
	switch {
	case errors.Is(err, errGuestOnly):
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		status, why = exitNotFound, "stat "+name+": "+err.Error()
	case errors.Is(err, unix.ENOTDIR):
		why = "stat " + name + ": not a directory"
	case err != nil:
		return fmt.Errorf("look for program %q: %w", name, err)
	default:
		defer func() { _ = f.Close() }()
		if why, err = l.why(f); err != nil {
			return fmt.Errorf("look for program %q: %w", name, err)
		}
	}
	if why == "" {
		return nil
	}
	return client.CannotRun(status, fmt.Errorf("exec: %q: %s", name, why))
}

// why is empty for a file that can be run.
func (l *lookup) why(f *os.File) (string, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "is a directory, or no regular file", nil
	case info.Mode()&0o111 == 0:
		return "permission denied", nil
	}
	interpreter, err := interpreterOf(f)
	if err != nil || !filepath.IsAbs(interpreter) {
		return "", err
	}
	found, err := l.open(interpreter)
	if errors.Is(err, unix.ENOENT) {
		return "its interpreter " + interpreter + ": no such file or directory", nil
	}
	if err == nil {
		_ = found.Close()
	}
	return "", nil // the guest's kernel says what else there is
}

// maxInterpreter is how much of a script the kernel looks at, in bytes.
const maxInterpreter = 256

// interpreterOf returns the interpreter of a script, and nothing for another program. f is a path to a
// regular file.
func interpreterOf(f *os.File) (string, error) {
	program, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }()
	line, err := bufio.NewReader(io.LimitReader(program, maxInterpreter)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	rest, ok := strings.CutPrefix(line, "#!")
	if fields := strings.Fields(rest); ok && len(fields) > 0 {
		return fields[0], nil
	}
	return "", nil
}

// lookup finds files of a container by their paths in it. No link leads out of it.
type lookup struct {
	view   View
	root   *os.File
	mounts map[string]string   // destination to the path below the share, "" for what only the guest has
	trees  map[string]*os.File // by destination
}

// errGuestOnly says that a path leads to where only the guest has files.
var errGuestOnly = errors.New("only the guest has files there")

func (e *Exposure) openFiles() (*lookup, error) {
	root, err := e.view.Tree(e.view.RootfsPath(), true)
	if err != nil {
		return nil, err
	}
	l := &lookup{view: e.view, root: root, mounts: make(map[string]string), trees: make(map[string]*os.File)}
	for i, m := range e.spec.Spec.Mounts {
		f, at, err := l.walk(filepath.Join("/", m.Destination))
		if err == nil {
			_ = f.Close()
		}
		if errors.Is(err, errGuestOnly) {
			continue // below another one of the guest's
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
func (l *lookup) open(path string) (*os.File, error) {
	f, _, err := l.walk(path)
	return f, err
}

// maxLinks is the kernel's bound.
const maxLinks = 40

// walk returns where a path leads as well, without links. Of what is not there that is what is
// known of it.
func (l *lookup) walk(path string) (*os.File, string, error) {
	for range maxLinks {
		f, at, next, err := l.step(path)
		if next == "" {
			return f, at, err
		}
		path = next
	}
	return nil, path, unix.ELOOP
}

// step follows a path to its end or to the first link in it, and returns the path that is meant then.
func (l *lookup) step(path string) (f *os.File, at, next string, err error) {
	names := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	at = "/"
	dir, mine := l.root, false // mine is to be closed here
	done := func() {
		if mine {
			_ = dir.Close()
		}
	}
	for i, name := range names {
		if name == "" {
			break
		}
		parent := at
		at = filepath.Join(at, name)
		if tree, mounted, err := l.mounted(at); mounted || err != nil {
			done()
			if err != nil {
				return nil, filepath.Join(append([]string{at}, names[i+1:]...)...), "", err
			}
			dir, mine = tree, false
			continue
		}
		entry, err := openEntry(dir, name)
		done()
		if err != nil {
			if errors.Is(err, unix.ENOENT) && l.leadsToMount(at) {
				dir, mine = nil, false
				continue
			}
			return nil, filepath.Join(append([]string{at}, names[i+1:]...)...), "", err
		}
		dir, mine = entry, true
		if target, link := readLink(entry); link {
			done()
			if !filepath.IsAbs(target) {
				target = filepath.Join(parent, target)
			}
			return nil, at, filepath.Join(append([]string{target}, names[i+1:]...)...), nil
		}
	}
	if dir == nil {
		return nil, at, "", unix.ENOENT
	}
	if !mine {
		dir, err = dup(dir)
	}
	return dir, at, "", err
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
	return string(slices.Clone(buf[:n])), true
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
