package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// validVersion is what a version may look like: it becomes the name of a directory.
var validVersion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]*$`)

// bundle is an unpacked bundle, with the sum of its checksums.
type bundle struct {
	dir, version, sums string
}

// openBundle opens an unpacked bundle, and reads all of it: a file that is missing or
// damaged is found before anything is changed.
func openBundle(dir string) (*bundle, error) {
	v, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	if err != nil {
		return nil, fmt.Errorf("%s is no unpacked bundle: %w", dir, err)
	}
	b := &bundle{dir: dir, version: strings.TrimSpace(string(v))}
	if !validVersion.MatchString(b.version) {
		return nil, fmt.Errorf("the bundle in %s has version %q, which is none", dir, b.version)
	}
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return nil, fmt.Errorf("checksums of the bundle: %w", err)
	}
	b.sums = sumOf(sums)
	return b, b.verify(dir)
}

// sumsFile has the checksums of all other files.
const sumsFile = "SHA256SUMS"

// verify compares a tree with the bundle's checksums.
func (b *bundle) verify(tree string) error {
	sums, err := os.ReadFile(filepath.Join(b.dir, sumsFile))
	if err != nil {
		return fmt.Errorf("checksums of the bundle: %w", err)
	}
	if sumOf(sums) != b.sums {
		return fmt.Errorf("the bundle in %s has been changed meanwhile", b.dir)
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return fmt.Errorf("the bundle is not complete: %w", err)
	}
	defer root.Close()
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("checksums of the bundle: %q is no line of them", lines.Text())
		}
		data, err := root.ReadFile(name)
		if err != nil {
			return fmt.Errorf("the bundle is not complete: %w", err)
		}
		if sumOf(data) != sum {
			return fmt.Errorf("%s is not what was packed; unpack the bundle again", filepath.Join(tree, name))
		}
	}
	return nil
}

// sameShape reports whether a tree has the bundle's symbolic links, of which there are no
// checksums, and the permissions that its files are to have.
func (b *bundle) sameShape(tree string) bool {
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		copied := filepath.Join(tree, strings.TrimPrefix(path, b.dir))
		is, err := os.Lstat(copied)
		if err != nil {
			return err
		}
		if d.Type() != fs.ModeSymlink {
			mode, err := modeOf(d)
			if err == nil && is.Mode() != mode {
				err = fs.ErrInvalid
			}
			return err
		}
		want, err := os.Readlink(path)
		if err != nil {
			return err
		}
		target, err := os.Readlink(copied)
		if err == nil && target != want {
			err = fs.ErrInvalid
		}
		return err
	})
	return err == nil
}

// modeOf is the mode that a file of a bundle is to have, whatever it was unpacked with.
func modeOf(d fs.DirEntry) (fs.FileMode, error) {
	info, err := d.Info()
	if err != nil {
		return 0, err
	}
	if info.Mode()&0o100 != 0 {
		return 0o755, nil
	}
	return 0o644, nil
}

// setModes lets everybody read a tree, and run what is to be run.
func setModes(tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		mode, err := modeOf(d)
		if err != nil {
			return err
		}
		return root.Chmod(name, mode)
	})
}

// copyTo copies the tree to a directory that is there when all of it is.
func (b *bundle) copyTo(dir string) error {
	if b.verify(dir) == nil && b.sameShape(dir) {
		return nil
	}
	part := dir + partSuffix
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	err := os.CopyFS(part, os.DirFS(b.dir))
	if err == nil {
		err = setModes(part)
	}
	if err == nil {
		err = b.verify(part) // somebody may have unpacked another one meanwhile
	}
	if err == nil {
		err = syncDir(part)
	}
	if err == nil {
		err = swap(part, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("copy the bundle to %s: %w", dir, err), os.RemoveAll(part))
	}
	return nil
}

// partSuffix is added to the name of a tree that is not whole.
const partSuffix = ".part"

// swap puts a directory in the place of another one, if there is one. At each moment
// there is one of them: pods are started meanwhile.
func swap(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		return os.Rename(from, to)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(from)
}

// syncDir writes back the file system of a directory: a version that is there after a
// loss of power is whole.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// config is the template of our configuration, with the paths of a distribution.
func (b *bundle) config() ([]byte, error) {
	return os.ReadFile(filepath.Join(b.dir, "share/ccv2/config.toml"))
}
