package qemu

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const qemuBinary = "/usr/bin/qemu-system-x86_64"

var virtiofsdBinary, _ = filepath.Abs("../../../build/virtiofsd/virtiofsd") // make virtiofsd

// guestInit is the guest's first program: it loads the modules in order, and
// then runs the commands that come through its port, one per line.
const guestInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read m; do insmod /modules/$m.ko || echo "insmod $m failed" >/dev/console; done </modules/order
for p in /sys/class/virtio-ports/*; do
	[ "$(cat $p/name)" = test.shell ] && port=/dev/${p##*/}
done
exec 0<>$port 1>&0 2>&0
echo ready
while :; do
	until read line; do
		[ "$waits" ] || poweroff -f
		sleep 0.1 # nobody is at the other end
	done
	eval "$line"
	echo "@rc=$?"
done
`

// guestFiles finds the kernel and makes an initramfs. The test is skipped when
// the machine has no QEMU or the checkout no kernel.
func guestFiles(t *testing.T) (kernel, initrd string) {
	t.Helper()
	if _, err := os.Stat(qemuBinary); err != nil {
		t.Skipf("no QEMU: %v; install qemu-system-x86", err)
	}
	kernel = buildPath(t, "CCV2_TEST_KERNEL", "boot/vmlinuz-*")
	modules := buildPath(t, "CCV2_TEST_MODULES", "lib/modules/*", "usr/lib/modules/*")
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("no busybox: %v; use make unit, or install busybox-static", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var a cpio
	for _, dir := range []string{"bin", "dev", "proc", "sys", "modules", "mnt"} {
		a.add(dir, 0o40755, nil)
	}
	a.add("bin/busybox", 0o100755, busybox)
	a.add("init", 0o100755, []byte(guestInit))
	order := loadOrder(t, modules, "virtio_pci", "virtio_mmio", "virtio_console", "virtio_rng", "virtio_blk", "virtio_net", "virtiofs", "virtio_mem")
	var names []string
	for _, m := range order {
		names = append(names, m.name)
		a.add("modules/"+m.name+".ko", 0o100644, m.data)
	}
	a.add("modules/order", 0o100644, []byte(strings.Join(names, "\n")+"\n"))
	initrd = filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, a.finish(), 0o600); err != nil {
		t.Fatal(err)
	}
	return kernel, initrd
}

// buildPath returns the value of the variable env, or what matches one of the
// patterns in an unpacked kernel package below the checkout's build directory.
func buildPath(t *testing.T, env string, patterns ...string) string {
	t.Helper()
	if path := os.Getenv(env); path != "" {
		return path
	}
	var found []string
	for _, pattern := range patterns {
		matches, err := filepath.Glob(filepath.Join("../../../build/linux-image-*", pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	if len(found) == 0 {
		t.Skipf("no %s below build/linux-image-*: run make guest, or set %s", strings.Join(patterns, " or "), env)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

type module struct {
	name string
	data []byte
}

// loadOrder returns the named modules and all that they depend on, these first.
func loadOrder(t *testing.T, dir string, names ...string) []module {
	t.Helper()
	paths := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(strings.TrimSuffix(filepath.Base(path), ".xz"), ".ko"); ok {
			paths[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(builtin)) {
		name := strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko")
		paths[strings.ReplaceAll(name, "-", "_")] = "" // there is nothing to load
	}
	var order []module
	seen := make(map[string]bool)
	var visit func(string)
	visit = func(name string) {
		if seen[name] || name == "" {
			return
		}
		seen[name] = true
		if path, ok := paths[name]; ok && path == "" {
			return
		}
		data := readModule(t, paths[name])
		_, info, _ := bytes.Cut(data, []byte("\x00depends="))
		depends, _, _ := bytes.Cut(info, []byte{0})
		for d := range strings.SplitSeq(string(depends), ",") {
			visit(strings.ReplaceAll(d, "-", "_"))
		}
		order = append(order, module{name: name, data: data})
	}
	for _, name := range names {
		visit(name)
	}
	return order
}

// readModule returns a module that may be compressed, as those of Debian 13 are.
func readModule(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil && strings.HasSuffix(path, ".xz") {
		data, err = exec.CommandContext(t.Context(), "xz", "--decompress", "--stdout", path).Output()
	}
	if err != nil {
		t.Fatalf("module %s: %v", path, err)
	}
	return data
}

// cpio builds an archive in the "newc" format.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (c *cpio) add(name string, mode int, data []byte) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.buf.WriteString(name + "\x00")
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

func (c *cpio) finish() []byte {
	c.add("TRAILER!!!", 0, nil)
	return c.buf.Bytes()
}
