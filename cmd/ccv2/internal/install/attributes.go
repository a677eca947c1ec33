package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// likeFile gives a new file the owner, the permissions and the extended attributes of the
// one that it is to replace, access control lists among them; one that replaces nothing is
// readable for everybody.
func likeFile(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, unix.ENOENT) {
		return f.Chmod(0o644)
	} else if err != nil {
		return err
	}
	// A change of the owner takes bits away.
	err := errors.Join(f.Chown(int(st.Uid), int(st.Gid)), unix.Fchmod(int(f.Fd()), st.Mode&0o7777))
	if err != nil {
		return err
	}
	names, err := attributes(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := attribute(path, name)
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("keep attribute %s: %w", name, err)
		}
	}
	return nil
}

// ofContent are the attributes that are made of a file's content, by the kernel.
var ofContent = []string{"security.ima", "security.evm"}

// attributes are the names of those of a file.
func attributes(path string) ([]string, error) {
	list, err := grow(func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var names []string
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if len(name) > 0 && !slices.Contains(ofContent, string(name)) {
			names = append(names, string(name))
		}
	}
	return names, nil
}

func attribute(path, name string) ([]byte, error) {
	return grow(func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
}

// grow calls what fills a buffer with one that is large enough.
func grow(fill func([]byte) (int, error)) ([]byte, error) {
	for b := make([]byte, 1<<8); ; b = make([]byte, 2*len(b)) {
		n, err := fill(b)
		if errors.Is(err, unix.ERANGE) && len(b) < 1<<20 {
			continue
		}
		return b[:max(n, 0)], err
	}
}
