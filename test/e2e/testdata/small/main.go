// Command small opens small files for reading, does with them all that can be done with such,
// while others change them, and prints what comes of it, a line for each.
//
// usage: small DIRECTORY...
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/testdata/said"
)

func main() {
	for _, root := range os.Args[1:] {
		dir, err := os.MkdirTemp(root, "small")
		t := try{filepath.Base(root), filepath.Join(dir, "file")}
		t.say("directory", err)
		t.calls()
		t.refused()
		t.changes()
		t.removed()
		t.many(dir)
		t.say("remove", os.RemoveAll(dir))
	}
}

// try is a file, and what to call its directory.
type try struct{ name, file string }

func (t try) say(what string, err error, values ...any) {
	said.Line(t.name, what, err, values...)
}

// opened makes the file anew and opens it for reading.
func (t try) opened(text string) *os.File {
	_ = os.Remove(t.file)
	err := os.WriteFile(t.file, []byte(text), 0o644)
	f, err2 := os.Open(t.file)
	if err = errors.Join(err, err2); err != nil {
		t.say("open", err)
		os.Exit(1)
	}
	return f
}

func (t try) read(what string, f *os.File) {
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	t.say(what, err, string(b[:n]))
}

// calls are those that take a descriptor which only reads.
func (t try) calls() {
	f := t.opened("0123456789")
	defer f.Close()
	fd := int(f.Fd())
	t.read("read", f)
	t.say("sync", errors.Join(f.Sync(), unix.Fdatasync(fd), unix.Syncfs(fd)))
	t.say("advice", errors.Join(unix.Fadvise(fd, 0, 10, unix.FADV_WILLNEED), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)))
	t.read("read again", f)
	at, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	t.say("seek data", err, at)
	at, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
	t.say("seek hole", err, at)
	t.say("chmod, chown", errors.Join(f.Chmod(0o640), f.Chown(1, 2), unix.Futimes(fd, []unix.Timeval{{Sec: 1000}, {Sec: 2000}})))
	info, err := f.Stat()
	t.say("state", err, info.Mode(), info.Size(), info.ModTime().Unix())
	t.say("set attribute", unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
	n, err := unix.Fgetxattr(fd, "user.a", make([]byte, 10))
	t.say("attribute", err, n)
	t.say("lock", errors.Join(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})))
	m, err := unix.Mmap(fd, 0, 10, unix.PROT_READ, unix.MAP_SHARED)
	t.say("map", err, string(m))
	f2, err := os.Open(t.file) // while it is mapped
	t.read("mapped", f2)
	t.say("unmap", errors.Join(err, f2.Close(), unix.Munmap(m)))
	copied, err := os.Create(t.file + "2")
	if err == nil {
		n, err = unix.CopyFileRange(fd, &at, int(copied.Fd()), nil, 10, 0)
	}
	t.say("copy from its end", err, n)
	from := int64(2)
	n, err = unix.CopyFileRange(fd, &from, int(copied.Fd()), nil, 10, 0)
	t.say("copy", err, n)
	from = 4
	n, err = unix.Sendfile(int(copied.Fd()), fd, &from, 3)
	t.say("send", err, n)
	text, err := os.ReadFile(t.file + "2")
	t.say("copied", errors.Join(err, copied.Close()), string(text))
	direct, err := unix.Open(t.file, unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	t.say("open again", errors.Join(err, unix.Close(direct)))
	var fs unix.Statfs_t
	t.say("statfs", unix.Fstatfs(fd, &fs), fs.Bsize > 0)
}

// refused is what cannot be done with them.
func (t try) refused() {
	f := t.opened("text")
	defer f.Close()
	fd := int(f.Fd())
	_, err := unix.Write(fd, []byte("x"))
	t.say("write", err)
	t.say("truncate", unix.Ftruncate(fd, 1))
	t.say("allocate", unix.Fallocate(fd, 0, 0, 10))
	_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	t.say("terminal", err)
	_, err = unix.ReadDirent(fd, make([]byte, 100))
	t.say("list", err)
	_, err = unix.Mmap(fd, 0, 4, unix.PROT_WRITE, unix.MAP_SHARED)
	t.say("map to write", err)
	t.read("read", f)
}

// changes that others make are seen by who has the file open.
func (t try) changes() {
	f := t.opened("before")
	defer f.Close()
	t.read("before", f)
	w, err := os.OpenFile(t.file, os.O_RDWR, 0)
	if err == nil {
		_, err = w.WriteAt([]byte("after!"), 0)
	}
	t.say("write", err)
	t.read("after", f)
	_, err = w.WriteAt(bytes.Repeat([]byte("large "), 50_000), 0)
	t.say("grow", err)
	var sum int
	whole, err := io.ReadAll(f)
	for _, c := range whole {
		sum += int(c)
	}
	t.say("grown", err, len(whole), sum)
	t.say("cut", errors.Join(w.Truncate(3), w.Close()))
	t.read("is cut", f)
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR|os.O_TRUNC, 0)
	if err == nil {
		_, err = again.WriteString("anew")
	}
	t.say("open to write", errors.Join(err, again.Close()))
	t.read("anew", f)
}

// removed files and those that another one has replaced are read on.
func (t try) removed() {
	f := t.opened("first")
	defer f.Close()
	t.say("replace", errors.Join(os.WriteFile(t.file+"2", []byte("second"), 0o600), os.Rename(t.file+"2", t.file)))
	t.read("replaced", f)
	second, err := os.Open(t.file)
	t.read("by its name", second)
	t.say("remove", errors.Join(err, os.Remove(t.file)))
	t.read("removed", second)
	var st unix.Stat_t
	err = unix.Fstat(int(second.Fd()), &st)
	t.say("links", err, st.Nlink)
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", second.Fd()))
	t.read("opened once more", again)
	t.say("close", errors.Join(err, again.Close(), second.Close()))
}

// many files of each size around pages, twice, with a change between.
func (t try) many(dir string) {
	for _, c := range []string{"a", "b"} {
		var bad, sum int
		for _, size := range []int{0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 200_000} {
			name := filepath.Join(dir, fmt.Sprint("size", size))
			err := os.WriteFile(name, []byte(strings.Repeat(c, size)), 0o600)
			for range 2 {
				text, err2 := os.ReadFile(name)
				if err != nil || err2 != nil || len(text) != size || strings.Count(string(text), c) != size {
					bad++
				}
				sum += len(text)
			}
		}
		t.say("sizes", nil, bad, sum)
	}
}
