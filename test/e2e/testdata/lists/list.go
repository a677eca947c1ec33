package main

import (
	"bytes"
	"encoding/binary"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// entry is one of a directory. next is the position after it.
type entry struct {
	name string
	ino  uint64
	next int64
	kind uint8
}

// list reads an open directory with a buffer.
type list struct {
	dir string
	fd  int
	buf []byte
}

func open(dir string, size int) (*list, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return &list{dir, fd, make([]byte, size)}, err
}

func (l *list) close() error { return unix.Close(l.fd) }

// some are the entries of one call.
func (l *list) some() (some []entry, err error) {
	n, err := unix.Getdents(l.fd, l.buf)
	if err != nil {
		return nil, err
	}
	for b := l.buf[:n]; len(b) > 0; b = b[binary.NativeEndian.Uint16(b[16:]):] {
		name, _, _ := bytes.Cut(b[19:binary.NativeEndian.Uint16(b[16:])], []byte{0})
		some = append(some, entry{string(name), binary.NativeEndian.Uint64(b), int64(binary.NativeEndian.Uint64(b[8:])), b[18]})
	}
	return some, nil
}

// rest are all entries that are left.
func (l *list) rest() (all []entry, err error) {
	for {
		some, err := l.some()
		if err != nil || len(some) == 0 {
			return all, err
		}
		all = append(all, some...)
	}
}

// wrong is how many of the entries have another type or number than the file of that name.
func (l *list) wrong(all []entry) (n int) {
	for _, e := range all {
		var st unix.Stat_t
		if e.name == ".." {
			continue
		}
		err := unix.Fstatat(l.fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		var again unix.Stat_t
		err2 := unix.Lstat(filepath.Join(l.dir, e.name), &again)
		if err != nil || err2 != nil || st.Ino != e.ino || uint32(e.kind) != st.Mode>>12 || again != st {
			n++
		}
	}
	return n
}
