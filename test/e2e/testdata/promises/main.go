// Command promises tries, in a privileged container, what containers can expect of the
// guest's kernel, and prints a line for each thing that it lacks.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileSystems can be mounted, as far as the kernel is concerned.
const fileSystems = "bpf cgroup2 debugfs devpts devtmpfs erofs ext4 fuse fusectl hugetlbfs mqueue overlay proc ramfs securityfs sysfs tmpfs virtiofs"

// files are there; of a directory, that it is.
var files = []string{
	"/proc/kcore", "/proc/keys", "/proc/pressure/memory", "/proc/self/attr/apparmor/current", "/proc/self/cpuset", "/proc/self/loginuid",
	"/proc/self/numa_maps", "/proc/self/oom_score_adj", "/proc/self/pagemap", "/proc/self/sched", "/proc/self/schedstat", "/proc/self/sessionid",
	"/proc/self/smaps_rollup", "/proc/self/timens_offsets", "/proc/swaps",
	"/proc/net/fib_triestat", "/proc/net/netlink", "/proc/net/packet", "/proc/net/unix",
	"/proc/sys/fs/quota/drops", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/numa_balancing",
	"/proc/sys/kernel/perf_event_paranoid", "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/net/core/xfrm_acq_expires", "/proc/sys/net/ipv4/xfrm4_gc_thresh",
	"/proc/sys/vm/nr_hugepages_mempolicy", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/zone_reclaim_mode",
	"/sys/class/dmi/id/product_name", "/sys/devices/system/node/node0/meminfo", "/sys/fs/ext4/features/casefold", "/sys/fs/ext4/features/encryption",
	"/sys/fs/ext4/features/verity", "/sys/kernel/debug", "/sys/kernel/mm/ksm/run", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/security",
}

// calls are system calls that a kernel can be built without.
var calls = map[string]uintptr{
	"acct": unix.SYS_ACCT, "add_key": unix.SYS_ADD_KEY, "bpf": unix.SYS_BPF, "epoll_pwait2": unix.SYS_EPOLL_PWAIT2,
	"fanotify_init": unix.SYS_FANOTIFY_INIT, "fanotify_mark": unix.SYS_FANOTIFY_MARK, "finit_module": unix.SYS_FINIT_MODULE, "futex_waitv": unix.SYS_FUTEX_WAITV,
	"get_mempolicy": unix.SYS_GET_MEMPOLICY, "get_robust_list": unix.SYS_GET_ROBUST_LIST, "io_setup": unix.SYS_IO_SETUP, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	"ioperm": unix.SYS_IOPERM, "iopl": unix.SYS_IOPL, "kcmp": unix.SYS_KCMP, "keyctl": unix.SYS_KEYCTL, "landlock_create_ruleset": unix.SYS_LANDLOCK_CREATE_RULESET,
	"mbind": unix.SYS_MBIND, "membarrier": unix.SYS_MEMBARRIER, "memfd_create": unix.SYS_MEMFD_CREATE, "migrate_pages": unix.SYS_MIGRATE_PAGES,
	"move_pages": unix.SYS_MOVE_PAGES, "mq_open": unix.SYS_MQ_OPEN, "msgget": unix.SYS_MSGGET, "name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT,
	"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "pkey_alloc": unix.SYS_PKEY_ALLOC, "process_madvise": unix.SYS_PROCESS_MADVISE, "process_vm_readv": unix.SYS_PROCESS_VM_READV,
	"quotactl": unix.SYS_QUOTACTL, "quotactl_fd": unix.SYS_QUOTACTL_FD, "request_key": unix.SYS_REQUEST_KEY, "rseq": unix.SYS_RSEQ, "seccomp": unix.SYS_SECCOMP,
	"semget": unix.SYS_SEMGET, "set_mempolicy": unix.SYS_SET_MEMPOLICY, "set_mempolicy_home_node": unix.SYS_SET_MEMPOLICY_HOME_NODE, "shmget": unix.SYS_SHMGET,
	"signalfd4": unix.SYS_SIGNALFD4, "swapon": unix.SYS_SWAPON, "sysfs": unix.SYS_SYSFS, "timer_create": unix.SYS_TIMER_CREATE, "timerfd_create": unix.SYS_TIMERFD_CREATE,
	"userfaultfd": unix.SYS_USERFAULTFD,
}

// sockets are families, kinds and protocols.
var sockets = map[string][3]int{
	"unix": {unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, "packet": {unix.AF_PACKET, unix.SOCK_RAW, 0},
	"tcp": {unix.AF_INET, unix.SOCK_STREAM, 0}, "ping": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "udplite": {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
	"mptcp": {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, "mptcp of IPv6": {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	"audit": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, "connector": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CONNECTOR},
	"netfilter": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, "sock_diag": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG},
	"generic netlink": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC}, "uevents": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
}

// advice is what madvise takes.
var advice = map[string]int{
	"dontfork": unix.MADV_DONTFORK, "dontdump": unix.MADV_DONTDUMP, "free": unix.MADV_FREE, "hugepage": unix.MADV_HUGEPAGE,
	"mergeable": unix.MADV_MERGEABLE, "cold": unix.MADV_COLD, "wipeonfork": unix.MADV_WIPEONFORK, "populate": unix.MADV_POPULATE_WRITE,
}

// programs are the types of BPF programs that need nothing but a return.
var programs = map[string]uint32{"socket filter": 1, "tc": 3, "xdp": 6, "cgroup skb": 8, "sk_skb": 14, "cgroup device": 15, "sk_msg": 16, "lwt seg6local": 19, "flow dissector": 22, "lwt xmit": 12}

func main() {
	runtime.LockOSThread()
	for name := range strings.FieldsSeq(fileSystems) {
		lacks("file system "+name, mountable(name), unix.ENODEV)
	}
	for _, name := range files {
		_, err := os.Stat(name)
		lacks(name, err, unix.ENOENT)
	}
	for name, number := range calls {
		_, _, err := unix.Syscall6(number, ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0))
		lacks("system call "+name, err, unix.ENOSYS)
	}
	for name, s := range sockets {
		_, err := unix.Socket(s[0], s[1], s[2])
		lacks("socket "+name, err, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT)
	}
	for name, a := range advice {
		memory, err := unix.Mmap(-1, 0, 1<<21, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Madvise(memory, a)
		}
		lacks("advice "+name, err, unix.EINVAL, unix.ENOMEM)
	}
	for name, kind := range programs {
		lacks("BPF program "+name, loadable(kind), unix.EINVAL, unix.ENOSYS, unix.EPERM)
	}
	if filter, err := os.ReadFile("/proc/self/coredump_filter"); err != nil || string(filter) != "00000033\n" {
		fmt.Printf("coredump_filter: %q, %v\n", filter, err)
	}
}

// lacks prints an error that means that the kernel has no such thing.
func lacks(name string, err error, nothing ...unix.Errno) {
	if err != nil && slices.ContainsFunc(nothing, func(e unix.Errno) bool { return errors.Is(err, e) }) {
		fmt.Printf("%s: %v\n", name, err)
	}
}

func mountable(name string) error {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	if err := unix.Mount("none", dir, name, 0, ""); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// loadable loads `return 1` as a program of that type.
func loadable(kind uint32) error {
	code := []byte{0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}
	license := []byte("GPL\x00")
	attr := make([]byte, 128)
	binary.LittleEndian.PutUint32(attr, kind)
	binary.LittleEndian.PutUint32(attr[4:], 2)
	binary.LittleEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&code[0]))))
	binary.LittleEndian.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&license[0]))))
	const load = 5 // BPF_PROG_LOAD
	_, _, errno := unix.Syscall(unix.SYS_BPF, load, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		return errno
	}
	return nil
}
