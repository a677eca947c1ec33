// Command unseen reads files and directories with and without O_NOATIME, and prints whether the
// time of their last access has changed, a line for each.
//
// usage: unseen DIRECTORY... | unseen as FILE
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/testdata/said"
)

const other = 1000 // a user that owns nothing

// accessed and changed are times of long ago: a read sets the first, which is before the second, on
// file systems with relatime as well.
var accessed, changed = time.Unix(1000, 0), time.Unix(2000, 0)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "as" {
		_, err := open(os.Args[2], unix.O_NOATIME)
		said.Line("another user", "open", err)
		return
	}
	for _, root := range os.Args[1:] {
		all(root)
	}
}

func all(root string) {
	dir, err := os.MkdirTemp(root, "unseen")
	where := filepath.Base(root)
	said.Line(where, "directory", errors.Join(err, os.Chmod(root, 0o755), os.Chmod(dir, 0o755)))
	for name, size := range map[string]int{"small": 10, "page": 4096, "large": 300_000} {
		said.Line(where, "make", os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", size)), 0o644))
	}
	for _, name := range []string{"small", "page", "large"} {
		path, what := filepath.Join(dir, name), where+" "+name
		try(what, path, "read", content)
		try(what, path, "read a part", part)
		try(what, path, "map", mapped)
		child := exec.CommandContext(context.Background(), "/proc/self/exe", "as", path)
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		said.Line(what, "as another user", child.Run())
	}
	for _, entries := range []int{0, 20, 500} {
		list := filepath.Join(dir, fmt.Sprint("list", entries))
		err := os.Mkdir(list, 0o755)
		for i := range entries {
			err = errors.Join(err, os.WriteFile(filepath.Join(list, fmt.Sprint(i)), nil, 0o600))
		}
		said.Line(where, "make a directory", err, entries)
		try(fmt.Sprint(where, " of ", entries), list, "list", names)
	}
	said.Line(where, "remove", os.RemoveAll(dir))
}

// try does it without leaving a trace, as usual, and without one again.
func try(where, path, what string, do func(f *os.File) (int, error)) {
	for _, way := range []struct {
		name  string
		flags int
	}{{"unseen", unix.O_NOATIME}, {"seen", 0}, {"unseen again", unix.O_NOATIME}} {
		err := os.Chtimes(path, accessed, changed)
		var n int
		f, openErr := open(path, way.flags)
		if err = errors.Join(err, openErr); err == nil {
			n, err = do(f)
			err = errors.Join(err, f.Close())
		}
		var st unix.Stat_t
		err = errors.Join(err, unix.Stat(path, &st))
		said.Line(where, what+" "+way.name, err, n, "accessed then:", st.Atim.Sec != accessed.Unix())
	}
}

func open(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func content(f *os.File) (int, error) {
	b, err := io.ReadAll(f)
	return len(b), err
}

func part(f *os.File) (int, error) { return f.ReadAt(make([]byte, 3), 2) }

func mapped(f *os.File) (int, error) {
	const size = 5
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	n := strings.Count(string(m), "x")
	return n, unix.Munmap(m)
}

func names(f *os.File) (int, error) {
	all, err := f.Readdirnames(-1)
	return len(all), err
}
