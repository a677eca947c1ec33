package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
)

// checkConfig reads the configuration. What is wrong with the values is reported
// here; the other checks continue with those that could be read.
func (c *checker) checkConfig() finding {
	var err error
	c.config, err = config.Load(c.path, nil)
	if err != nil {
		return fail(strings.TrimPrefix(err.Error(), "configuration: "), "correct what is named above; the comments of the default file explain each key")
	}
	if _, err := os.Stat(c.path); errors.Is(err, os.ErrNotExist) {
		return ok("the defaults; %s does not exist", c.path)
	}
	return ok("%s", c.path)
}

func checkPrivileges(euid int) finding {
	if euid != 0 {
		return fail(fmt.Sprintf("running as user %d", euid), "run this as root, as containerd and its shims run")
	}
	return ok("root")
}

// checkMounts looks for the newest system call that every sandbox needs.
func checkMounts() finding {
	const nowhere = -1
	err := unix.MountSetattr(nowhere, "", unix.AT_EMPTY_PATH, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		return fail("the kernel has no mount_setattr, with which volumes are protected", "use Linux 5.12 or later")
	}
	return ok("the kernel can protect what is exposed to a guest (mount_setattr)")
}

// minQEMU is the oldest version that is tested: that of Debian 12.
const minQEMU = "7.2"

func (c *checker) checkQEMU(ctx context.Context) finding {
	path := c.config.Hypervisor.Path
	caps, err := c.driver.Probe(ctx, path)
	if err != nil {
		return fail(err.Error(), "install qemu-system-x86, or set hypervisor.path")
	}
	c.caps = caps
	if olderThan(caps.Version, minQEMU) {
		return fail(fmt.Sprintf("%s is version %s", path, caps.Version), "install QEMU "+minQEMU+" or newer")
	}
	if !caps.Seccomp {
		return fail(path+" was built without -sandbox", "install a QEMU with seccomp support, as distributions build it")
	}
	return ok("%s, version %s", path, caps.Version)
}

// olderThan compares versions number by number; what is missing is 0.
func olderThan(version, least string) bool {
	return slices.Compare(numbers(version), numbers(least)) < 0
}

func numbers(version string) (list []int) {
	for part := range strings.SplitSeq(version, ".") {
		list = append(list, 0)
		_, _ = fmt.Sscanf(part, "%d", &list[len(list)-1]) // what follows a number does not count
	}
	return list
}

func (c *checker) checkMachine() finding {
	m := c.config.Hypervisor.Machine
	if !slices.Contains(c.caps.Machines, m) {
		return fail("this QEMU has no machine "+m, "install a full QEMU (qemu-system-x86), or set hypervisor.machine to one of its machines")
	}
	return ok("%s", m)
}

func (c *checker) checkShare() finding {
	switch {
	case c.config.Share.Type == "virtiofs" && !c.caps.VirtioFS:
		return fail("this QEMU has no vhost-user-fs device", `install a full QEMU (qemu-system-x86), or set share.type = "9p"`)
	case c.config.Share.Type == "9p" && !c.caps.Virtio9P:
		return fail("this QEMU has no virtio-9p device", `install a full QEMU (qemu-system-x86), or set share.type = "virtiofs"`)
	}
	return ok("%s", c.config.Share.Type)
}

func (c *checker) checkAccelerator() finding {
	accel, reason, err := qemu.Resolve(hypervisor.Accelerator(c.config.Hypervisor.Accelerator), c.host)
	switch {
	case err != nil:
		return fail(err.Error(), `load the kvm module, or set hypervisor.accelerator = "auto"`)
	case reason != "":
		c.accel = accel
		return warn(fmt.Sprintf("%s: guests are emulated, which is 5 to 20 times slower (%s)", accel, reason), "use a host, or a VM with nested virtualisation, where /dev/kvm opens and /proc/cpuinfo shows vmx or svm")
	}
	c.accel = accel
	return ok("%s", accel)
}

// checkVhost opens what carries the frames of pods with KVM.
func checkVhost(device string) finding {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return warn(err.Error()+": the network of pods takes more processor time", "load the kernel module vhost_net, or set vm.vhost_net = false")
	}
	_ = file.Close()
	return ok("%s", device)
}

// checkReadable checks a file of the guest. Its absence was reported before.
func checkReadable(path, key string) finding {
	f, err := os.Open(path)
	if err != nil {
		return fail(err.Error(), "build it with `ccv2 image build`, and name it in "+key)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return fail(path+" is not a file with content", "build it with `ccv2 image build`, and name it in "+key)
	}
	return ok("%s, %.1f MiB", path, mib(info.Size()))
}

func checkVirtioFSD(ctx context.Context, path string) finding {
	version, err := virtiofsd.Probe(ctx, path)
	if err != nil {
		return fail(err.Error(), `install the one of ccv2 (make install), or that of the distribution (Debian 12: qemu-system-common), and set share.virtiofsd, or set share.type = "9p"`)
	}
	found := path + ", " + version.Line
	if version.Legacy {
		found += ", the one in C, which is no longer maintained"
	}
	if version.Legacy || !version.Own {
		return warn(found+": access control lists, O_TMPFILE and chattr cannot be used, and small files are slower", "install the one of ccv2 (make install), and set share.virtiofsd to it")
	}
	return ok("%s", found)
}

func checkMemfd() finding {
	fd, err := unix.MemfdCreate("ccv2-check", unix.MFD_CLOEXEC)
	if err != nil {
		return fail(fmt.Sprintf("memfd_create: %v", err), `use a kernel with memfd, or set share.type = "9p"`)
	}
	_ = unix.Close(fd)
	return ok("memory can be shared with virtiofsd")
}

// checkStateDir makes a directory where sandboxes will make theirs.
func checkStateDir(path string) finding {
	dir, remove, err := tempDir(path)
	if err != nil {
		return fail(err.Error(), "make it possible to create it, or set state_dir")
	}
	defer remove()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fail(err.Error(), "set state_dir to a directory on a tmpfs")
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return warn(path+" is not on a tmpfs: what a crashed host leaves there stays", "mount a tmpfs there, or set state_dir to a directory on one")
	}
	return ok("%s", path)
}

// tempDir makes a directory below root, and root itself when it is missing.
// remove removes all that was made, as long as it is empty but for the directory.
func tempDir(root string) (dir string, remove func(), err error) {
	var made []string
	for p := root; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == filepath.Dir(p) {
			break
		}
		made = append(made, p)
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(root, "check-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() {
		_ = os.RemoveAll(dir) // mounts below it were removed before
		for _, p := range made {
			_ = os.Remove(p)
		}
	}, nil
}

func checkCgroup(path string) finding {
	var fs unix.Statfs_t
	switch err := unix.Statfs(path, &fs); {
	case err != nil:
		return warn(err.Error(), "mount the cgroup file system; sandboxes run without limits on the host otherwise")
	case fs.Type == unix.CGROUP2_SUPER_MAGIC:
		return ok("version 2%s", whoMakesScopes())
	}
	version := "version 1"
	if unix.Statfs(filepath.Join(path, "unified"), &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		version = "versions 1 and 2 (hybrid)"
	}
	return ok("%s on the host%s; guests use version 2", version, whoMakesScopes())
}

// whoMakesScopes says what becomes of a cgroup in systemd's form.
func whoMakesScopes() string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ", without systemd"
	}
	return ", systemd makes scopes"
}

// shimName is what containerd makes of the runtime type io.containerd.cc.v2.
const shimName = "containerd-shim-cc-v2"

func checkShim(ctx context.Context) finding {
	path, err := exec.LookPath(shimName)
	if err != nil {
		return warn(shimName+" is not on the PATH of this shell",
			"run make install, with PREFIX on the PATH of containerd, or set runtime_path in containerd's configuration")
	}
	out, err := exec.CommandContext(ctx, path, "-v").Output()
	if err != nil {
		return fail(fmt.Sprintf("%s -v: %v", path, err), "install it again")
	}
	version := "unknown"
	for line := range strings.Lines(string(out)) {
		if v, found := strings.CutPrefix(strings.TrimSpace(line), "Version:"); found {
			version = strings.TrimSpace(v)
		}
	}
	return ok("%s, version %s", path, version)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
