// Command unnamed makes files without a name (O_TMPFILE) in directories, does with them what
// programs do, and prints what comes of it, a line for each.
//
// usage: unnamed DIRECTORY... | unnamed as DIRECTORY | unnamed child | unnamed hold DIRECTORY
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/testdata/said"
)

const (
	other   = 1000 // a user that owns nothing
	group   = 1234
	inherit = "system.posix_acl_default"
)

func main() {
	unix.Umask(0o027)
	switch {
	case len(os.Args) == 3 && os.Args[1] == "as":
		asOther(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "hold":
		hold(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "child":
		inherited := os.NewFile(3, "inherited")
		_, err := inherited.WriteString("child")
		if err = errors.Join(err, inherited.Close()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	default:
		for _, dir := range os.Args[1:] {
			all(dir)
		}
	}
}

func all(root string) {
	dir, err := os.MkdirTemp(root, "unnamed")
	t := try{filepath.Base(root), dir}
	t.say("directory", errors.Join(err, os.Chmod(root, 0o755), os.Chmod(dir, 0o755)))
	t.attributes()
	t.content()
	t.linked()
	t.refused()
	t.owners()
	t.inherits()
	t.many()
	entries, err := os.ReadDir(dir)
	t.say("left", err, len(entries))
	t.say("remove", os.RemoveAll(dir))
}

// try is a directory, and what to call it.
type try struct{ name, dir string }

func (t try) say(what string, err error, values ...any) {
	said.Line(t.name, what, err, values...)
}

func (t try) open(flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Open(t.dir, unix.O_TMPFILE|unix.O_CLOEXEC|flags, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "unnamed"), nil
}

// made is a file that can be read and written; what cannot be made ends the program.
func (t try) made() *os.File {
	f, err := t.open(unix.O_RDWR, 0o666)
	if err != nil {
		t.say("make", err)
		os.Exit(1)
	}
	return f
}

func (t try) state(what string, f *os.File) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	t.say(what, err, fmt.Sprintf("%o links %d, %d:%d, size %d", st.Mode, st.Nlink, st.Uid, st.Gid, st.Size))
}

func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func (t try) link(f *os.File, name string) error {
	return unix.Linkat(unix.AT_FDCWD, self(f), unix.AT_FDCWD, filepath.Join(t.dir, name), unix.AT_SYMLINK_FOLLOW)
}

// attributes are those of a file without a name.
func (t try) attributes() {
	f := t.made()
	defer f.Close()
	t.state("new", f)
	t.say("chmod", f.Chmod(0o4751))
	t.say("chown", f.Chown(other, group))
	t.state("changed", f)
	t.say("set attribute", unix.Fsetxattr(int(f.Fd()), "user.a", []byte("v"), 0))
	b := make([]byte, 10)
	n, err := unix.Fgetxattr(int(f.Fd()), "user.a", b)
	t.say("attribute", err, string(b[:max(n, 0)]))
	_, err = unix.Fgetxattr(int(f.Fd()), "user.b", b)
	t.say("no attribute", err)
	t.say("times", unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1000}, {Sec: 2000}}))
	info, err := f.Stat()
	t.say("time", err, info.ModTime().Unix())
	t.say("truncate", f.Truncate(10_000))
	t.say("allocate", unix.Fallocate(int(f.Fd()), 0, 5_000, 20_000))
	t.state("larger", f)
	t.say("lock", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	t.say("sync", errors.Join(f.Sync(), unix.Fdatasync(int(f.Fd()))))
}

// content is seen by all who have the file open, in whatever way they have got it.
func (t try) content() {
	f := t.made()
	defer f.Close()
	_, err := f.WriteString("0123456789")
	t.say("write", err)
	second, err := os.Open(self(f))
	t.say("open again", err)
	t.read("reads", second)
	end, err := os.OpenFile(self(f), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = end.WriteString("end")
	}
	t.say("append", errors.Join(err, end.Close()))
	t.read("reads again", second)
	child := exec.CommandContext(context.Background(), "/proc/self/exe", "child")
	child.ExtraFiles, child.Stdout, child.Stderr = []*os.File{f}, os.Stdout, os.Stderr
	t.say("write of a child", child.Run())
	t.read("after the child", second)
	m, err := unix.Mmap(int(f.Fd()), 0, 18, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		copy(m, "mapped")
		err = errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
	}
	t.say("map", err)
	t.read("after the map", second)
	cut, err := os.OpenFile(self(f), os.O_RDWR|os.O_TRUNC, 0)
	t.say("cut", errors.Join(err, cut.Close()))
	t.state("is cut", second)
	t.say("close", second.Close())
	append1, err := t.open(unix.O_WRONLY|unix.O_APPEND, 0o600)
	if err == nil {
		_, err = append1.WriteString("abc")
		_, err2 := append1.WriteString("def")
		err = errors.Join(err, err2)
	}
	t.say("append to a new one", err)
	t.state("appended", append1)
	_ = append1.Close()
}

func (t try) read(what string, f *os.File) {
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if n > 0 {
		err = nil
	}
	t.say(what, err, string(b[:n]))
}

// linked files get a name, or not.
func (t try) linked() {
	f := t.made()
	_, err := f.WriteString("text")
	t.say("for a name", errors.Join(err, f.Chmod(0o640), unix.Fsetxattr(int(f.Fd()), "user.a", []byte("v"), 0)))
	t.say("link", t.link(f, "name"))
	t.state("linked", f)
	t.say("link what has a name", t.link(f, "second"))
	t.state("linked twice", f)
	t.say("link where a file is", t.link(f, "name"))
	_, err = f.WriteString(" and more")
	t.say("write", err)
	text, err := os.ReadFile(filepath.Join(t.dir, "second"))
	t.say("by its name", err, string(text))
	var open, named unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &open), unix.Stat(filepath.Join(t.dir, "name"), &named))
	t.say("the same file", err, open.Ino == named.Ino && open.Dev == named.Dev)
	t.say("rename", os.Rename(filepath.Join(t.dir, "name"), filepath.Join(t.dir, "third")))
	t.say("close", f.Close())
	text, err = os.ReadFile(filepath.Join(t.dir, "third"))
	t.say("afterwards", err, string(text))
	n, err := unix.Getxattr(filepath.Join(t.dir, "third"), "user.a", make([]byte, 10))
	t.say("its attribute", err, n)
	t.say("remove", errors.Join(os.Remove(filepath.Join(t.dir, "third")), os.Remove(filepath.Join(t.dir, "second"))))

	never, err := t.open(unix.O_RDWR|unix.O_EXCL, 0o600)
	t.say("O_EXCL", err)
	t.say("link O_EXCL", t.link(never, "never"))
	_ = never.Close()

	gone := t.made()
	t.say("link", t.link(gone, "gone"))
	t.say("unlink", os.Remove(filepath.Join(t.dir, "gone")))
	t.state("unlinked", gone)
	t.say("link what was unlinked", t.link(gone, "again"))
	_, err = gone.WriteString("text")
	t.say("write what was unlinked", err)
	_ = gone.Close()
}

// refused is what no file system does.
func (t try) refused() {
	_, err := t.open(unix.O_RDONLY, 0o600)
	t.say("O_RDONLY", err)
	file := filepath.Join(t.dir, "file")
	t.say("make a file", os.WriteFile(file, nil, 0o600))
	_, err = try{t.name, file}.open(unix.O_RDWR, 0o600)
	t.say("in a file", err)
	t.say("remove", os.Remove(file))
	_, err = try{t.name, file}.open(unix.O_RDWR, 0o600)
	t.say("in nothing", err)
}

// owners are those of files that others make, or cannot make.
func (t try) owners() {
	for _, mode := range []uint32{0o755, 0o1777, 0o2777} {
		t.say(fmt.Sprintf("%o", mode), errors.Join(os.Chown(t.dir, 0, group), unix.Chmod(t.dir, mode)))
		child := exec.CommandContext(context.Background(), "/proc/self/exe", "as", t.dir)
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		t.say("by another", child.Run())
		f := t.made()
		t.state("by root", f)
		_ = f.Close()
	}
	t.say("as before", errors.Join(os.Chown(t.dir, 0, 0), unix.Chmod(t.dir, 0o755)))
}

// asOther makes a file as one who is not root.
func asOther(dir string) {
	t := try{"another", dir}
	f, err := t.open(unix.O_RDWR, 0o666)
	t.say("make", err)
	if err != nil {
		return
	}
	t.state("new", f)
	t.say("link", t.link(f, "of another"))
	t.state("linked", f)
	t.say("remove", os.Remove(filepath.Join(dir, "of another")))
}

// inherits: a file without a name has the list of its directory, where that has one.
func (t try) inherits() {
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, entry := range []struct {
		tag, permissions uint16
		id               uint32
	}{{1, 7, ^uint32(0)}, {2, 6, other}, {4, 0, ^uint32(0)}, {0x10, 7, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		list = binary.LittleEndian.AppendUint16(list, entry.tag)
		list = binary.LittleEndian.AppendUint16(list, entry.permissions)
		list = binary.LittleEndian.AppendUint32(list, entry.id)
	}
	dir := try{t.name, filepath.Join(t.dir, "heir")}
	t.say("make", os.Mkdir(dir.dir, 0o755))
	if err := unix.Setxattr(dir.dir, inherit, list, 0); err != nil && os.Getenv("LISTS") == "no" {
		t.say("remove", os.Remove(dir.dir))
		return
	}
	f := dir.made()
	defer f.Close()
	t.state("inherits", f)
	b := make([]byte, 100)
	n, err := unix.Fgetxattr(int(f.Fd()), "system.posix_acl_access", b)
	t.say("list", err, fmt.Sprintf("%x", b[:max(n, 0)]))
	t.say("remove", os.Remove(dir.dir))
}

// many files at a time, and one after the other.
func (t try) many() {
	var files []*os.File
	for i := range 300 {
		f := t.made()
		if _, err := f.WriteString(strings.Repeat("x", i)); err != nil {
			t.say("write", err)
		}
		files = append(files, f)
	}
	var sum int64
	for _, f := range files {
		info, err := f.Stat()
		if err != nil {
			t.say("stat", err)
			return
		}
		sum += info.Size()
		_ = f.Close()
	}
	t.say("many", nil, sum)
}

// hold makes a large file, says so, and gives it up when it is told.
func hold(dir string) {
	t := try{filepath.Base(dir), dir}
	f, err := t.open(unix.O_RDWR, 0o600)
	t.say("make", err)
	if err != nil {
		return
	}
	_, err = f.Write(make([]byte, 16<<20))
	t.say("held", errors.Join(err, f.Sync()))
	var line string
	_, _ = fmt.Scanln(&line)
	t.say("close", f.Close())
	_, _ = fmt.Scanln(&line)
}
