package bundle

import (
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kernel is what a bind mount shows of a kernel: processes, devices, settings,
// memory. A container in a VM runs on the guest's, so it gets the guest's own:
// that of the host would be about things that are not there, and a share cannot
// carry it. Exactly one field is set.
type Kernel struct {
	// Path is where the guest has the same.
	Path string
	// Type is that of a file system which the guest mounts only where it is asked
	// to.
	Type string
	// HugePages is the size in bytes of the pages of a hugetlbfs.
	HugePages int64
}

// places are where every system has the file systems of its kernel.
var places = map[int64]string{
	unix.PROC_SUPER_MAGIC: "/proc", unix.SYSFS_MAGIC: "/sys", unix.DEVPTS_SUPER_MAGIC: "/dev/pts", mqueueMagic: mqueuePath,
	unix.CGROUP_SUPER_MAGIC: cgroupPath, unix.CGROUP2_SUPER_MAGIC: cgroupPath,
}

const (
	mqueueMagic = 0x19800202 // the kernel has it in no header
	mqueuePath  = "/dev/mqueue"
	cgroupPath  = "/sys/fs/cgroup"
)

// onDemand are those that a guest mounts for no container but one that asks.
var onDemand = map[int64]string{
	unix.DEBUGFS_MAGIC: "debugfs", unix.TRACEFS_MAGIC: "tracefs", unix.BPF_FS_MAGIC: "bpf", unix.SECURITYFS_MAGIC: "securityfs",
}

// KernelOf reads what a bind mount shows of the kernel; ok is false for files.
// Single devices are files: their numbers mean the same to every kernel.
func KernelOf(m specs.Mount) (k Kernel, ok bool) {
	switch source := filepath.Clean(m.Source); {
	case source == mqueuePath:
		// `--ipc host` names it whether the host's kernel has queues or not.
		return Kernel{Path: source}, true
	case strings.HasPrefix(source+"/", "/proc/self/"):
		// Not the shim's: with runc it is runc's init, which becomes the container's.
		return Kernel{Path: source}, true
	}
	path, err := filepath.EvalSymlinks(m.Source)
	var st unix.Statfs_t
	if err != nil || !filepath.IsAbs(path) || unix.Statfs(path, &st) != nil {
		return k, false // whoever needs it says so
	}
	switch {
	case st.Type == unix.HUGETLBFS_MAGIC:
		return Kernel{HugePages: st.Bsize}, true
	case onDemand[st.Type] != "":
		return Kernel{Type: onDemand[st.Type]}, true
	case places[st.Type] != "":
		return Kernel{Path: filepath.Join(places[st.Type], within(path))}, true
	case path == "/dev" || path == cgroupPath: // with cgroup v1 a tmpfs, as is the former
		return Kernel{Path: path}, true
	}
	return k, false
}

// within is where a path is in its file system, of which any part can be mounted
// anywhere.
func within(path string) string {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return ""
	}
	var top *mountinfo.Info
	for _, m := range mounts {
		if top == nil || len(m.Mountpoint) >= len(top.Mountpoint) { // a later one covers it
			top = m
		}
	}
	if top == nil {
		return ""
	}
	// A group outside of the shim's cgroup namespace begins with "/..".
	return filepath.Join("/", top.Root, strings.TrimPrefix(path, top.Mountpoint))
}
