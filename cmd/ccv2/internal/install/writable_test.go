package install

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestReadOnly: a place that cannot be written is said, with the flag that names another,
// before anything is done; one where all is as it is to be is no hindrance.
func TestReadOnly(t *testing.T) {
	for path, flag := range map[string]string{
		"/usr/local/bin": "-bin", "/usr": "-bin", "/opt": "-prefix", "/etc/ccv2": "-config", "/etc/containerd": "-containerd-config", "/etc/containerd/conf.d": "-containerd-config",
	} {
		h := hostWith(t, "-")
		if err := os.MkdirAll(h.at(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if path == "/etc/containerd/conf.d" {
			write(t, h.at(h.Containerd), "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n")
		}
		if err := unix.Mount("tmpfs", h.at(path), "tmpfs", unix.MS_RDONLY, ""); err != nil {
			t.Skip("not without rights:", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(h.at(path), unix.MNT_DETACH) })
		before := tree(t, h)
		bundle := bundleOf(t, "1.0")
		err := Install(h, bundle, false, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "read-only file system; name another place with "+flag+"; nothing was changed") {
			t.Errorf("%s: %v", path, err)
		}
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", path, diff)
		}
		readOnly := func(flags uintptr) {
			if err := unix.Mount("", h.at(path), "", unix.MS_REMOUNT|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		readOnly(0)
		install(t, h, bundle)
		if path != "/opt" { // where the record is
			readOnly(unix.MS_RDONLY)
			install(t, h, bundle)
		}
	}
}

// TestFull: on a disk without any room nothing is left that keeps a later run from its end.
func TestFull(t *testing.T) {
	h := hostWith(t, "-")
	if err := os.MkdirAll(h.at("/opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr, size string) error {
		return unix.Mount("tmpfs", h.at("/opt"), "tmpfs", flags, "size="+size)
	}
	if err := mount(0, "4k"); err != nil {
		t.Skip("not without rights:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(h.at("/opt"), unix.MNT_DETACH) })
	write(t, h.at("/opt/theirs"), strings.Repeat("x", 4096))
	before := tree(t, h)
	bundle := bundleOf(t, "1.0")
	if err := Install(h, bundle, false, io.Discard); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/opt/ccv2/installed.json") {
		t.Error(err)
	}
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +full):\n%s", diff)
	}
	if err := mount(unix.MS_REMOUNT, "1m"); err != nil {
		t.Fatal(err)
	}
	install(t, h, bundle)
	uninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestNoExec: nothing is installed where no program can be run from.
func TestNoExec(t *testing.T) {
	h := hostWith(t, "-")
	if err := os.MkdirAll(h.at("/opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", h.at("/opt"), "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Skip("not without rights:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(h.at("/opt"), unix.MNT_DETACH) })
	before := tree(t, h)
	if err := Install(h, bundleOf(t, "1.0"), false, io.Discard); err == nil || !strings.Contains(err.Error(), "mounted with noexec; name another place with -prefix; nothing was changed") {
		t.Error(err)
	}
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}
