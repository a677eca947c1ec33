// Command attrs does with files what is about their attributes, and prints what
// comes of it, a line for each.
//
// usage: attrs DIRECTORY... | attrs as COMMAND FILE | attrs refused DIRECTORY |
// attrs lists DIRECTORY | attrs flags DIRECTORY | attrs label FILE | attrs wait FILE ATTRIBUTE
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/testdata/said"
)

const other = 1000 // a user that owns nothing

func main() {
	if len(os.Args) == 4 && os.Args[1] == "as" {
		asOther(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "refused" {
		try{filepath.Base(os.Args[2]), filepath.Join(os.Args[2], "file"), os.Args[2]}.refused()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "lists" {
		try{filepath.Base(os.Args[2]), filepath.Join(os.Args[2], "file"), os.Args[2]}.lists()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "flags" {
		try{filepath.Base(os.Args[2]), filepath.Join(os.Args[2], "file"), os.Args[2]}.flags()
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "wait" {
		wait(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "label" {
		label(os.Args[2])
		return
	}
	for _, dir := range os.Args[1:] {
		d, err := os.MkdirTemp(dir, "attrs")
		if err == nil {
			err = os.Chmod(d, 0o777)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		t := try{filepath.Base(dir), filepath.Join(d, "file"), d}
		t.names()
		t.values()
		t.capabilities()
		t.setUserID()
		t.same()
		_ = os.RemoveAll(d)
	}
}

// try is a directory with a file in it, and what to call it.
type try struct{ name, file, dir string }

func (t try) say(what string, err error, values ...any) {
	said.Line(t.name, what, err, values...)
}

// fresh makes the file anew.
func (t try) fresh(mode uint32) {
	_ = os.Remove(t.file)
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(t.file, self, 0o600)
	}
	if err == nil {
		err = unix.Chmod(t.file, mode)
	}
	if err != nil {
		t.say("make the file", err)
	}
}

func get(path, name string) (string, error) {
	b := make([]byte, 1<<16)
	n, err := unix.Lgetxattr(path, name, b)
	return string(b[:max(n, 0)]), err
}

// names tries each class of names on a file, a directory and a link.
func (t try) names() {
	t.fresh(0o644)
	link := filepath.Join(t.dir, "link")
	_ = os.Symlink("file", link)
	for _, path := range []string{t.file, t.dir, link} {
		for _, name := range []string{"user.a", "trusted.a", "trusted.overlay.opaque", "security.other", "none.a", "user."} {
			what := filepath.Ext(name) + " of " + strings.TrimRight(filepath.Base(path), "0123456789")
			t.say("set "+name+what, unix.Lsetxattr(path, name, []byte("v"), 0))
			value, err := get(path, name)
			t.say("get "+name+what, err, value)
		}
	}
	_ = os.Remove(link)
}

// values tries the sizes of values, the list, and what is there already.
func (t try) values() {
	t.fresh(0o644)
	for _, size := range []int{0, 1, 255, 3000} {
		name := fmt.Sprint("user.size", size)
		err := unix.Setxattr(t.file, name, slices.Repeat([]byte("x"), size), 0)
		value, _ := get(t.file, name)
		t.say(name, err, len(value))
	}
	t.say("create what is there", unix.Setxattr(t.file, "user.size1", nil, unix.XATTR_CREATE))
	t.say("replace what is not", unix.Setxattr(t.file, "user.no", nil, unix.XATTR_REPLACE))
	t.say("remove", unix.Removexattr(t.file, "user.size1"))
	t.say("remove again", unix.Removexattr(t.file, "user.size1"))
	_, err := unix.Getxattr(t.file, "user.size255", make([]byte, 5))
	t.say("too small a buffer", err)
	b := make([]byte, 1<<12)
	n, err := unix.Listxattr(t.file, b)
	names := strings.Split(strings.Trim(string(b[:max(n, 0)]), "\x00"), "\x00")
	slices.Sort(names)
	t.say("list", err, names)
}

// capability is the attribute of a file that gives CAP_NET_RAW.
func capability() []byte {
	const revision2, effective = 0x02000000, 1
	b := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	b = binary.LittleEndian.AppendUint32(b, 1<<unix.CAP_NET_RAW)
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, 0), 0)[:20]
}

// capabilities tries what keeps those of a file, and what takes them.
func (t try) capabilities() {
	const name = "security.capability"
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"nothing", func() error { return nil }},
		{"run by another", func() error { return t.as("status", t.file) }},
		{"rename", func() error { return errors.Join(os.Rename(t.file, t.file+"2"), os.Rename(t.file+"2", t.file)) }},
		{"chmod", func() error { return os.Chmod(t.file, 0o700) }},
		{"chown", func() error { return os.Chown(t.file, other, other) }},
		{"write", func() error { return write(t.file) }},
		{"truncate", func() error { return os.Truncate(t.file, 1) }},
		{"removal by another", func() error { return t.as("strip", "/proc/self/exe") }},
		{"write by another", func() error { return t.as("write", "/proc/self/exe") }},
	} {
		t.fresh(0o777)
		t.say("give a capability", unix.Setxattr(t.file, name, capability(), 0))
		t.say("after "+step.what, step.do())
		value, err := get(t.file, name)
		t.say("capability", err, value == string(capability()))
	}
}

// setUserID tries who takes the set-user-id and set-group-id bits of a file.
func (t try) setUserID() {
	// Without execution by the group, kernels before 6.2 keep the set-group-id bit.
	for _, mode := range []uint32{0o4777, 0o6777, 0o2777} {
		for _, what := range []string{"truncating", "write", "truncate", "append", "nothing"} {
			t.fresh(mode)
			t.mode(fmt.Sprintf("%o %s by root", mode, what), change(what, t.file))
			t.fresh(mode)
			t.mode(fmt.Sprintf("%o %s by another", mode, what), t.as(what, "/proc/self/exe"))
		}
		t.fresh(mode)
		t.mode(fmt.Sprintf("%o chown", mode), os.Chown(t.file, 0, other))
	}
}

// mode says what mode the file has after something.
func (t try) mode(what string, err error) {
	var st unix.Stat_t
	_ = unix.Stat(t.file, &st)
	t.say(what, err, fmt.Sprintf("%o", st.Mode))
}

// label gives a file what security modules read, and shows all that it has.
func label(file string) {
	t := try{name: filepath.Base(file), file: file}
	for _, name := range []string{"security.selinux", "security.SMACK64EXEC", "security.other"} {
		t.say("set "+name, unix.Setxattr(file, name, []byte("v"), 0))
		value, err := get(file, name)
		t.say("get "+name, err, value)
	}
	b := make([]byte, 1<<12)
	n, err := unix.Listxattr(file, b)
	names := strings.Split(strings.Trim(string(b[:max(n, 0)]), "\x00"), "\x00")
	slices.Sort(names)
	t.say("list", err, names)
}

// refused tries what a VM cannot do, or not with all kernels.
func (t try) refused() {
	t.fresh(0o644)
	t.say("access list", unix.Setxattr(t.file, accessList, list(6), 0))
	t.say("default access list", unix.Setxattr(t.dir, defaultList, list(6), 0))
	for _, fixed := range fixedFlags {
		t.say(fixed.name, changeFlags(t.file, fixed.flag, 0))
	}
	t.say("project", changeProject(t.file))
}

// Attributes that are access control lists.
const (
	accessList  = "system.posix_acl_access"
	defaultList = "system.posix_acl_default"
)

// list is one that gives the other user these permissions, the owner all, and nobody
// else any.
func list(permissions uint16) []byte {
	const version, none = 2, ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, version)
	for _, entry := range []struct {
		tag, permissions uint16
		id               uint32
	}{{1, 7, none}, {2, permissions, other}, {4, 0, none}, {0x10, 7, none}, {0x20, 0, none}} {
		b = binary.LittleEndian.AppendUint16(b, entry.tag)
		b = binary.LittleEndian.AppendUint16(b, entry.permissions)
		b = binary.LittleEndian.AppendUint32(b, entry.id)
	}
	return b
}

// lists tries whether access control lists are kept, obeyed and inherited.
func (t try) lists() {
	for _, permissions := range []uint16{0, 4, 6} {
		t.fresh(0o700)
		t.say(fmt.Sprint("give ", permissions), unix.Setxattr(t.file, accessList, list(permissions), 0))
		value, err := get(t.file, accessList)
		t.say("keep", err, value == string(list(permissions)))
		t.mode("mode", nil)
		t.say("write by another", t.as("write", "/proc/self/exe"))
		t.say("read by another", t.as("read", "/proc/self/exe"))
		t.say("chmod", os.Chmod(t.file, 0o600))
		value, err = get(t.file, accessList)
		t.say("after chmod", err, fmt.Sprintf("%x", value))
		t.say("take", unix.Removexattr(t.file, accessList))
		t.mode("mode", nil)
		t.say("read by another", t.as("read", "/proc/self/exe"))
	}
	t.say("give by another", t.as("list", "/proc/self/exe"))
	dir := filepath.Join(t.dir, "heir")
	t.say("make a directory", os.Mkdir(dir, 0o777))
	t.say("default", unix.Setxattr(dir, defaultList, list(6), 0))
	in := try{t.name, filepath.Join(dir, "file"), dir}
	in.fresh(0o640)
	in.say("read by another", in.as("read", "/proc/self/exe"))
	f, err := os.OpenFile(filepath.Join(dir, "new"), os.O_CREATE|os.O_WRONLY, 0o666)
	in.say("make a file", errors.Join(err, f.Close(), os.Mkdir(filepath.Join(dir, "below"), 0o777)))
	for _, name := range []string{"new", "below"} {
		value, err := get(filepath.Join(dir, name), accessList)
		t.say("inherited by "+name, err, fmt.Sprintf("%x", value))
	}
	value, err := get(filepath.Join(dir, "below"), defaultList)
	t.say("default inherited", err, value == string(list(6)))
}

// as does something with the file as another user, in a program's process.
func (t try) as(what, program string) error {
	cmd := exec.CommandContext(context.Background(), program, "as", what, t.file)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	return cmd.Run()
}

// asOther is that process.
func asOther(what, file string) {
	if what == "status" {
		status, err := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "CapEff") || strings.HasPrefix(line, "Uid") {
				fmt.Print(line)
			}
		}
		if err == nil {
			return
		}
	}
	if err := change(what, file); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func change(what, file string) error {
	switch what {
	case "truncating":
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
		return errors.Join(err, f.Close())
	case "write":
		return write(file)
	case "append":
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("x")
		}
		return errors.Join(err, f.Close())
	case "truncate":
		return os.Truncate(file, 3)
	case "read":
		_, err := os.ReadFile(file)
		return err
	case "flags":
		return changeFlags(file, nodump, 0)
	case "list":
		return unix.Setxattr(file, accessList, list(6), 0)
	case "strip":
		return unix.Removexattr(file, "security.capability")
	default:
		return nil
	}
}

func write(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("written")
	return errors.Join(err, f.Close())
}
