//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestHostileShare: who is root in the guest's kernel decides nothing about
// where the shim mounts and removes on the host. Every directory that the shim
// walks through stays as the shim made it.
func TestHostileShare(t *testing.T) {
	t.Run("virtiofs", func(t *testing.T) { hostileShare(t, "mknod /v/null c 1 3; echo x > /v/null") })
	t.Run("9p", func(t *testing.T) {
		configure9P(t, "q35", "auto")
		hostileShare(t, "true") // QEMU's 9p server makes no devices
	})
}

// attacks print what they achieved. $top is the shared directory in the guest.
const attacks = `top=/proc/1/root/run/ccv2/shared; c=$top/hostile; v=$top/.volumes
ls -d $c/rootfs/bin $v/0 >/dev/null || echo "looked in the wrong place"
try() { "$@" 2>/dev/null && echo "could: $*"; }
try mkdir $top/next
try ln -s /etc $top/next
try touch $top/file
try mv $c $top/moved
try mv $v $top/moved
try mv $v/0 $v/1
try ln -s /etc $v/1
try ln -s /etc $c/link
try mkdir $v/1
try rmdir $v/0
try chmod 777 $top
try chmod 777 $c
try chown 1 $v
try mount -o remount,rw $top && try mkdir $top/next
echo done`

func hostileShare(t *testing.T, device string) {
	shared.Watch(t)
	volume := t.TempDir()
	for _, sub := range []string{"a", "later"} {
		if err := os.Mkdir(filepath.Join(volume, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	task := shared.Running(t, "hostile", harness.Streams{}, []string{"sleep", "3600"},
		oci.WithPrivileged, oci.WithHostNamespace(specs.PIDNamespace),
		oci.WithMounts([]specs.Mount{{Type: "bind", Source: volume, Destination: "/v", Options: []string{"rbind", "rw"}}}))
	if got, _ := shared.Output(t, task, "attack", "sh", "-c", attacks); got != "done\n" {
		t.Errorf("the guest %s", got)
	}
	ownFiles(t, task, device)
	swapBelowVolume(t, task, volume)
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
	if _, err := os.Stat(filepath.Join(volume, "of-the-guest")); err != nil {
		t.Errorf("the volume has lost a file: %v", err)
	}
}

// ownFiles: what belongs to the container is as writable as ever, and what it
// makes there is harmless to the host.
func ownFiles(t *testing.T, task client.Task, device string) {
	t.Helper()
	script := `set -e; echo a > /root-file; mkdir /d; mv /root-file /d/f; ln -s /etc /d/l; rm -r /d
echo b > /v/of-the-guest; mkdir /v/m; mv /v/m /v/n; ` + device + "; echo done"
	if got, status := shared.Output(t, task, "own", "sh", "-c", script); got != "done\n" || status != 0 {
		t.Errorf("in its own files the container got %q, status %d", got, status)
	}
	found, err := filepath.Glob(filepath.Join(shared.StateDir(), "*", "hostile"))
	if err != nil || len(found) != 1 {
		t.Fatalf("directory of the sandbox: %v, %v", found, err)
	}
	if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("users of the host can enter %s: %v, %v", found[0], info, err)
	}
	views := []string{filepath.Join(found[0], "files"), filepath.Join(found[0], "shared")}
	for _, p := range shared.Processes() {
		if p.Name == "virtiofsd" { // mounts are made where it lives
			views = []string{fmt.Sprintf("/proc/%d/root", p.PID)}
		}
	}
	for _, view := range views {
		for _, name := range []string{"hostile/rootfs", ".volumes/0"} {
			var fs unix.Statfs_t
			path := filepath.Join(view, name)
			if err := unix.Statfs(path, &fs); err != nil || fs.Flags&unix.ST_NODEV == 0 || fs.Flags&unix.ST_NOSUID == 0 || fs.Flags&unix.ST_RDONLY != 0 {
				t.Errorf("flags of %s: %#x, %v", path, fs.Flags, err)
			}
		}
	}
}

// swapBelowVolume: the host mounts something below a volume, and the guest puts
// a link in place of a directory on the way to it. The clean-up must not follow.
func swapBelowVolume(t *testing.T, task client.Task, volume string) {
	t.Helper()
	outside := t.TempDir()
	if err := os.Mkdir(filepath.Join(outside, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(volume, "a", "b"), filepath.Join(outside, "b")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	shared.Output(t, task, "swap", "sh", "-c", "cd /v; mv a moved; ln -s "+outside+" a")
	t.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(volume, "moved", "b"), unix.MNT_DETACH)
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || !strings.Contains(string(mounts), filepath.Join(outside, "b")) {
			t.Errorf("the clean-up has unmounted something of the host: %v", err)
		}
	})
}
