package bundle

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestKernelOf is about what every Linux has.
func TestKernelOf(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc/sys", link); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]Kernel{
		"/dev/mqueue": {Path: "/dev/mqueue"}, "/dev/mqueue/": {Path: "/dev/mqueue"},
		"/proc": {Path: "/proc"}, "/proc/sys/kernel": {Path: "/proc/sys/kernel"}, link: {Path: "/proc/sys"},
		"/proc/self": {Path: "/proc/self"}, "/proc/self/net": {Path: "/proc/self/net"},
		"/sys": {Path: "/sys"}, "/sys/class": {Path: "/sys/class"}, "/sys/fs/cgroup": {Path: "/sys/fs/cgroup"},
		"/dev": {Path: "/dev"}, "/dev/pts": {Path: "/dev/pts"},
		// Files, and what is not there.
		"/": {}, "/dev/null": {}, "/dev/shm": {}, "/etc": {}, "proc": {}, dir: {}, "/proc/no-such-file": {}, "": {},
	} {
		got, ok := KernelOf(specs.Mount{Type: "bind", Source: source, Destination: "/d"})
		if got != want || ok != (want != Kernel{}) {
			t.Errorf("%q: %+v, %v, want %+v", source, got, ok, want)
		}
	}
}

// TestKernelElsewhere mounts parts of such file systems in other places.
func TestKernelElsewhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("/proc/sys", dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for source, want := range map[string]string{dir: "/proc/sys", filepath.Join(dir, "kernel"): "/proc/sys/kernel"} {
		if got, _ := KernelOf(specs.Mount{Type: "bind", Source: source}); got.Path != want {
			t.Errorf("%s: %+v, want %s", source, got, want)
		}
	}
}
