package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// Host is where a bundle is installed. All paths are those of the host.
type Host struct {
	Root       string // of the host's file system, "/" but for tests and node images
	Prefix     string // /opt/ccv2
	Bin        string // a directory of containerd's PATH
	Config     string // ccv2's configuration
	Containerd string // containerd's configuration

	// interrupt is called before each change; for tests.
	interrupt func() error
}

// change is called before each change of the host.
func (h Host) change() error {
	if h.interrupt != nil {
		return h.interrupt()
	}
	return nil
}

// Defaults are the paths of a host on which nothing is unusual.
func Defaults() Host {
	return Host{Root: "/", Prefix: "/opt/ccv2", Bin: "/usr/local/bin", Config: "/etc/ccv2/config.toml", Containerd: "/etc/containerd/config.toml"}
}

// at is where a path of the host is for this process, with the links in the place of
// directories followed on the host: an absolute one begins at its root. What is at the path
// may itself be a link.
func (h Host) at(path string) string {
	return filepath.Join(h.Resolve(filepath.Dir(path)), filepath.Base(path))
}

// Resolve is where something of the host is for this process, with all links followed.
func (h Host) Resolve(path string) string {
	resolved, err := securejoin.SecureJoin(h.Root, path)
	if err != nil {
		return filepath.Join(h.Root, path) // whoever opens it gets the same error
	}
	return resolved
}

// onHost is a path of this process as one of the host with that root.
func onHost(root, path string) string {
	return filepath.Join("/", strings.TrimPrefix(path, filepath.Clean(root)))
}

func (h Host) recordPath() string { return filepath.Join(h.Prefix, "installed.json") }

// RuntimeClass is the path of the RuntimeClass, which is written when it is known.
func (h Host) RuntimeClass() string { return filepath.Join(h.Prefix, "runtimeclass.yaml") }
func (h Host) currentPath() string  { return filepath.Join(h.Prefix, "current") }

// file is the path of a file, where a symbolic link is there instead of it: what a link
// points to is read and written, and the link stays.
func (h Host) file(path string) string {
	if _, err := os.Readlink(h.at(path)); err != nil {
		return path
	}
	return onHost(h.Root, h.Resolve(path))
}

// read reads a file, which is nil when there is none.
func (h Host) read(path string) ([]byte, error) {
	b, err := os.ReadFile(h.at(h.file(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// newSuffix is added to the name of what is being made: what an interruption leaves has
// a name that is known.
const newSuffix = ".ccv2-new"

// write replaces a file, whole or not at all. Owner, permissions and extended attributes of
// one that is there stay.
func (h Host) write(path string, data []byte) error {
	if err := h.change(); err != nil {
		return err
	}
	target := h.at(h.file(path))
	if err := os.Remove(target + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(target+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, likeFile(f, target), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// WriteRuntimeClass writes the RuntimeClass.
func WriteRuntimeClass(h Host, text string) error { return h.write(h.RuntimeClass(), []byte(text)) }

// link makes a symbolic link, in the place of another one.
func (h Host) link(path, target string) error {
	temporary := h.at(path) + newSuffix
	if err := h.change(); err != nil {
		return err
	}
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, h.at(path))
}

// target is what a symbolic link points to; "" when there is nothing, and an error for
// anything that is no link.
func (h Host) target(path string) (string, error) {
	target, err := os.Readlink(h.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return target, err
}

// mkdirs makes a directory and those above it.
func (h Host) mkdirs(path string) error {
	if err := h.change(); err != nil {
		return err
	}
	return os.MkdirAll(h.Resolve(path), 0o755)
}

// removeTree removes one that an installation made, and what is left of making it.
func (h Host) removeTree(name string) error {
	path := h.at(filepath.Join(h.Prefix, name))
	return errors.Join(h.change(), os.RemoveAll(path), os.RemoveAll(path+partSuffix))
}

// missing are a directory and those above it that are not there.
func (h Host) missing(path string) []string {
	var all []string
	for dir := path; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Stat(h.Resolve(dir)); err == nil {
			break
		}
		all = append([]string{dir}, all...)
	}
	return all
}

// remove removes a file that need not be there.
func (h Host) remove(path string) error {
	if err := h.change(); err != nil {
		return err
	}
	if err := os.Remove(h.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// users are the pids of processes whose executable is below a directory of the host, but
// for those of the tool, of which this is one. The kernel's paths have no symbolic links.
func (h Host) users(dir string) []string {
	dir = onHost(h.Root, h.Resolve(dir))
	links, err := filepath.Glob(filepath.Join(h.at("/proc"), "[0-9]*", "exe"))
	if err != nil {
		return nil
	}
	var pids []string
	for _, link := range links {
		path, err := os.Readlink(link)
		path = strings.TrimSuffix(path, " (deleted)")
		if err == nil && strings.HasPrefix(path, dir+"/") && filepath.Base(path) != "ccv2" {
			pids = append(pids, filepath.Base(filepath.Dir(link)))
		}
	}
	return pids
}

// isNotEmpty reports whether a directory could not be removed because of what is in it.
func isNotEmpty(err error) bool { return errors.Is(err, unix.ENOTEMPTY) }
