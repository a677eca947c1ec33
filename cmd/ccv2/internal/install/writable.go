package install

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// planWritable refuses a host on which something is to be changed in a directory that cannot
// be: on a read-only file system, as distributions have whose /usr is an image, or protected
// by chattr.
func (p *plan) planWritable() error {
	for _, path := range slices.Sorted(maps.Keys(p.paths())) {
		same, err := p.same(path)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		dir := p.there(filepath.Dir(p.host.file(path)))
		err = unix.Access(p.host.Resolve(dir), unix.W_OK)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s cannot be written, %s is: %w; name another place with %s; nothing was changed", path, dir, err, p.flag(path))
		}
	}
	return p.planExecutable()
}

// planExecutable refuses a place that no program can be run from.
func (p *plan) planExecutable() error {
	dir := p.there(p.host.Prefix)
	var st unix.Statfs_t
	if err := unix.Statfs(p.host.Resolve(dir), &st); err != nil {
		return fmt.Errorf("file system of %s: %w; nothing was changed", dir, err)
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("no program can be run from %s, %s is on a file system that is mounted with noexec; name another place with -prefix; nothing was changed", p.host.Prefix, dir)
	}
	return nil
}

// there is a directory, or the one above it that is there.
func (p *plan) there(dir string) string {
	if missing := p.host.missing(dir); len(missing) > 0 {
		return filepath.Dir(missing[0])
	}
	return dir
}

// same reports whether something is as it is to be.
func (p *plan) same(path string) (bool, error) {
	if want, ok := p.links[path]; ok {
		target, err := p.host.target(path)
		return target == want, err
	}
	if _, ok := p.blocks[path]; ok {
		is, will, err := p.edited(path)
		return is != nil && bytes.Equal(is, will), err
	}
	want, ok := p.files[path]
	if !ok {
		return false, nil // the record
	}
	is, err := p.host.read(path)
	return is != nil && bytes.Equal(is, want), err
}

// flag is the one that says where something is.
func (p *plan) flag(path string) string {
	switch {
	case path == p.host.Config || path == p.host.Config+newConfigSuffix:
		return "-config"
	case filepath.Dir(path) == p.host.Prefix:
		return "-prefix"
	case p.links[path] != "":
		return "-bin"
	}
	return "-containerd-config"
}
