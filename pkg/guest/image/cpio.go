package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File modes of the cpio format, which are those of struct stat.
const (
	modeDir     uint32 = 0o040000
	modeRegular uint32 = 0o100000
	modeSymlink uint32 = 0o120000
	modeChar    uint32 = 0o020000
)

// entry is one member of the archive.
type entry struct {
	mode         uint32 // type and permission bits
	data         []byte // content, or the target of a symbolic link
	major, minor uint32 // device number of a character device
}

// archive collects the members of an initramfs by path without leading slash.
// The writer is our own: the format is one fixed header, and the public
// packages for it bring a large module graph.
type archive struct {
	entries map[string]entry
}

func newArchive() *archive { return &archive{entries: map[string]entry{}} }

var errDuplicate = errors.New("path is already in the image with other content")

// add puts a member at name and makes its parent directories.
func (a *archive) add(name string, e entry) error {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		parent, ok := a.entries[dir]
		if !ok {
			a.entries[dir] = entry{mode: modeDir | 0o755}
			continue
		}
		if parent.mode&0o170000 != modeDir {
			return fmt.Errorf("add %s: %s is not a directory", name, dir)
		}
	}
	old, ok := a.entries[name]
	if !ok {
		a.entries[name] = e
		return nil
	}
	if old.mode != e.mode || !bytes.Equal(old.data, e.data) {
		return fmt.Errorf("add %s: %w", name, errDuplicate)
	}
	return nil
}

func (a *archive) addFile(name string, perm fs.FileMode, data []byte) error {
	return a.add(name, entry{mode: modeRegular | uint32(perm.Perm()), data: data})
}

func (a *archive) addDir(name string, perm uint32) error {
	return a.add(name, entry{mode: modeDir | perm})
}

func (a *archive) addSymlink(name, target string) error {
	return a.add(name, entry{mode: modeSymlink | 0o777, data: []byte(target)})
}

// names returns the members' paths sorted, so that a directory precedes what
// is in it.
func (a *archive) names() []string {
	names := make([]string, 0, len(a.entries))
	for name := range a.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// trailer ends a newc archive.
const trailer = "TRAILER!!!"

// writeTo writes the archive in the newc format. Owner, times and inode
// numbers are fixed: the bytes depend on paths, modes and content only.
func (a *archive) writeTo(w io.Writer) error {
	for i, name := range a.names() {
		// Inode numbers are unique so that no two members look like links.
		if err := writeMember(w, uint32(i)+1, name, a.entries[name]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return writeMember(w, 0, trailer, entry{})
}

func writeMember(w io.Writer, inode uint32, name string, e entry) error {
	links := uint32(1)
	if e.mode&0o170000 == modeDir {
		links = 2
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, field := range []uint32{
		inode, e.mode, 0, 0, links, 0, uint32(len(e.data)),
		0, 0, e.major, e.minor, uint32(len(name) + 1), 0,
	} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(name)
	b.WriteByte(0)
	pad4(&b)
	b.Write(e.data)
	pad4(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// pad4 aligns to four bytes. Every member starts aligned, so the length within
// the member decides.
func pad4(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
