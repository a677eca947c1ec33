package original

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// ociVersion is what every OCI runtime accepts.
const ociVersion = "1.0.2"

// Container returns the specification of a container. Its errors are the host's to mend.
func Container(r *NewContainer) (*specs.Spec, error) {
	if r.Process == nil {
		return nil, invalid("container %s has no process", r.ID)
	}
	if err := r.refuse(); err != nil {
		return nil, &hyperstart.GuestError{Class: hyperstart.ClassNotImplemented, Err: fmt.Errorf("container %s: %w", r.ID, err)}
	}
	root, err := belowShare(filepath.Join(r.Image, r.RootFS))
	if err != nil {
		return nil, invalid("container %s: root file system: %w", r.ID, err)
	}
	process, err := ProcessOf(r.Process, root)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", r.ID, err)
	}
	spec := &specs.Spec{
		Version: ociVersion, Process: process, Root: &specs.Root{Path: root, Readonly: r.ReadOnly},
		Mounts: kernelMounts(r.Mounts.DevShmSize),
		Linux: &specs.Linux{
			Sysctl: r.Sysctl, Resources: resources(r.Constraints), MaskedPaths: masked(), ReadonlyPaths: readOnly(),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
			},
		},
	}
	for _, b := range r.Binds {
		m, err := bind(b)
		if err != nil {
			return nil, invalid("container %s: %w", r.ID, err)
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	return spec, nil
}

func invalid(format string, args ...any) error {
	return hyperstart.Errorf(hyperstart.ClassInvalidArgument, format, args...)
}

// belowShare returns where the guest has a path of the share.
func belowShare(path string) (string, error) {
	path = strings.TrimPrefix(path, "/")
	if !filepath.IsLocal(path) || path == "." {
		return "", fmt.Errorf("%q is not a path below the share", path)
	}
	return filepath.Join(hyperstart.ShareMount, path), nil
}

func bind(b AbsolutePathBind) (specs.Mount, error) {
	source := b.Source
	if !b.AbsolutePath {
		var err error
		if source, err = belowShare(b.Source); err != nil {
			return specs.Mount{}, fmt.Errorf("mount %s: %w", b.Path, err)
		}
	}
	if !filepath.IsAbs(source) || !filepath.IsAbs(b.Path) {
		return specs.Mount{}, fmt.Errorf("mount %s on %s: not an absolute path", source, b.Path)
	}
	options := []string{"rbind"}
	if b.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Type: "bind", Source: source, Destination: b.Path, Options: options}, nil
}

// resources are the limits of a container. Any number is one that the kernel may refuse.
func resources(c Constraints) *specs.LinuxResources {
	cpu := &specs.LinuxCPU{}
	if c.CPUQuota != 0 {
		cpu.Quota = &c.CPUQuota
	}
	if c.CPUPeriod != 0 {
		cpu.Period = &c.CPUPeriod
	}
	if c.CPUShares != 0 {
		cpu.Shares = &c.CPUShares
	}
	char := func(major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return &specs.LinuxResources{CPU: cpu, Devices: []specs.LinuxDeviceCgroup{
		{Access: "rwm"}, // nothing but the following
		char(1, 3), char(1, 5), char(1, 7), char(1, 8), char(1, 9), char(5, 0), char(5, 2),
	}}
}

// defaultShm is the size of /dev/shm in bytes when none is given, as with other engines.
const defaultShm = 64 << 20

// kernelMounts are the file systems that every container has.
func kernelMounts(shm int) []specs.Mount {
	if shm <= 0 {
		shm = defaultShm
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup2", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
}

// masked and readOnly are what containers see nothing of, or cannot write, as with other
// engines.
func masked() []string {
	return []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}
}

func readOnly() []string {
	return []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
