package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/image"
)

// The guests that there are: the usual one, and one whose kernel is the distribution's, with modules.
const (
	usualGuest   = "guest"
	modularGuest = "guest-9p"
)

// artefacts returns kernel and initramfs of a guest, or skips the test.
func artefacts(t *testing.T, guest string) (kernel, initrd string) {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "build", guest)
	kernel, initrd = filepath.Join(dir, image.KernelFile), filepath.Join(dir, image.InitrdFile)
	for _, f := range []string{kernel, initrd} {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("%v: build the guest image with `make %s`", err, guest)
		}
	}
	for _, name := range []string{"qemu-system-x86_64", "busybox"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	return kernel, initrd
}

// testInitrd appends this tree's agent and a busybox root to the initramfs.
func testInitrd(t *testing.T, initrd string, more ...image.Addition) string {
	t.Helper()
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", agent, "../../../cmd/ccv2-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build agent: %v\n%s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	for _, applet := range []string{"sh", "cat", "echo", "sleep", "dd", "head", "md5sum", "stty", "true", "tail", "hostname", "wc", "yes", "mount", "umount", "brctl", "ip", "mkdir", "mknod"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", applet)))
	}
	must(t, os.WriteFile(filepath.Join(root, "bin/noexec"), []byte("text"), 0o644))
	for name, content := range map[string]string{"text": "some text\n", "script": "#!/nope\n", "dos": "#!/bin/sh\r\n", "foreign": foreignELF} {
		must(t, os.WriteFile(filepath.Join(root, "bin", name), []byte(content), 0o755))
	}
	overlay, err := image.Overlay(append(more,
		image.Addition{Source: agent, Dest: "/init"}, image.Addition{Source: root, Dest: "/rootfs"},
		image.Addition{Source: busybox, Dest: "/rootfs/bin/busybox"}))
	must(t, err)
	base, err := os.ReadFile(initrd)
	must(t, err)
	out := filepath.Join(dir, "initrd.img")
	must(t, os.WriteFile(out, append(base, overlay...), 0o644))
	return out
}

// foreignELF begins like a program for a processor that guests do not have.
const foreignELF = "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16" // EM_S390

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
