package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of files, as <linux/fs.h> has them.
const (
	synchronous = 0x8
	nodump      = 0x40
	noatime     = 0x80
	topDir      = 0x20000

	extendedNoatime = 0x40
)

// fixedFlags are those that take CAP_LINUX_IMMUTABLE.
var fixedFlags = []struct {
	name string
	flag uint32
}{{"immutable", 0x10}, {"append-only", 0x20}}

// flags tries those of files and directories.
func (t try) flags() {
	t.fresh(0o644)
	t.flag("file", t.file)
	t.say("set", changeFlags(t.file, nodump|noatime|synchronous, 0))
	t.flag("with all", t.file)
	t.say("by another", t.as("flags", "/proc/self/exe"))
	t.say("write", write(t.file))
	t.say("take one", changeFlags(t.file, 0, synchronous))
	t.flag("without it", t.file)
	t.say("take one by the other command", withFile(t.file, func(fd int) error {
		x := extended{flags: extendedNoatime}
		return ioctl(fd, setX, &x)
	}))
	t.flag("without that", t.file)
	for _, fixed := range fixedFlags {
		t.say("not "+fixed.name, changeFlags(t.file, 0, fixed.flag))
		t.say(fixed.name, changeFlags(t.file, fixed.flag, 0))
	}
	t.say("write", write(t.file))
	dir := filepath.Join(t.dir, "flagged")
	t.say("make a directory", os.Mkdir(dir, 0o755))
	t.flag("directory", dir)
	t.say("set", changeFlags(dir, nodump|topDir, 0))
	t.flag("with both", dir)
	in := try{t.name, filepath.Join(dir, "file"), dir}
	in.fresh(0o600)
	in.flag("inherits", in.file)
	t.say("rename", os.Rename(in.file, t.file))
	t.flag("renamed", t.file)
	pipe := filepath.Join(dir, "pipe")
	t.say("make a pipe", unix.Mkfifo(pipe, 0o600))
	_, err := getFlags(pipe)
	t.say("pipe", err)
	t.say("an ioctl that there is not", withFile(t.file, func(fd int) error { return unix.IoctlSetInt(fd, 0x6677, 0) }))
	t.say("terminal?", withFile(t.file, func(fd int) error { _, err := unix.IoctlGetTermios(fd, unix.TCGETS); return err }))
	t.say("remove", errors.Join(os.RemoveAll(dir), os.Remove(t.file)))
}

func (t try) flag(what, path string) {
	flags, err := getFlags(path)
	t.say(what, err, fmt.Sprintf("%x", flags))
	x, err := getExtended(path)
	t.say(what+", extended", err, fmt.Sprintf("%x %d %d", x.flags, x.extentSize, x.project))
}

// withFile opens a file for reading, which is all that lsattr and chattr do.
func withFile(path string, do func(fd int) error) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(int(f.Fd())), f.Close())
}

func getFlags(path string) (flags uint32, err error) {
	err = withFile(path, func(fd int) error {
		flags, err = unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		return err
	})
	return flags, err
}

func changeFlags(path string, give, take uint32) error {
	return withFile(path, func(fd int) error {
		flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^take|give))
	})
}

// extended is struct fsxattr.
type extended struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

// FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR.
const (
	getX = 0x801c581f
	setX = 0x401c5820
)

func ioctl(fd int, command uintptr, x *extended) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), command, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}

func getExtended(path string) (x extended, err error) {
	err = withFile(path, func(fd int) error { return ioctl(fd, getX, &x) })
	return x, err
}

// changeProject has the file count for another project of the file system's quota.
func changeProject(path string) error {
	return withFile(path, func(fd int) error {
		var x extended
		if err := ioctl(fd, getX, &x); err != nil {
			return err
		}
		x.project++
		return ioctl(fd, setX, &x)
	})
}
