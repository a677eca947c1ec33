package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// tunables are settings that a guest of short-lived processes needs.
var tunables = []struct{ path, value string }{
	// The agent tells processes apart by pid, so pids should not come again soon.
	{"/proc/sys/kernel/pid_max", "4194304"},
	// With "always", the first touch of its heap costs every process a cleared
	// 2 MiB page: memory of the host, and under emulation more than 100 ms.
	{"/sys/kernel/mm/transparent_hugepage/enabled", "madvise"},
	// The rest are limits that the kernel derives from the memory, which here is hardly
	// more than the limits of the containers. What is allocated and not touched costs
	// nothing, what is touched counts for the container, whose limit is the one that
	// holds: as on a host with memory to spare.
	{"/proc/sys/vm/overcommit_memory", "1"},
	{"/proc/sys/kernel/threads-max", "4194304"},
	{"/proc/sys/fs/file-max", "9223372036854775807"}, // as systemd sets it
	{"/proc/sys/fs/inotify/max_user_watches", "1048576"},
	{"/proc/sys/fs/epoll/max_user_watches", "1048576"},
	{"/proc/sys/user/max_fanotify_marks", "1048576"},
}

// tune applies the tunables. A kernel that lacks one boots without it.
func tune() error {
	for _, t := range tunables {
		if err := kernfs.Write(t.path, t.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			console.Logf("set %s: %v", t.path, err)
		}
	}
	return nil
}

// SetClock sets the time, in nanoseconds since 1970.
func SetClock(nanos int64) error {
	ts := unix.NsecToTimespec(nanos)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

// StepClock adds nanoseconds to the time at once. What SlewClock has left to do was
// about the time before.
func StepClock(nanos int64) error {
	if err := SlewClock(0); err != nil {
		return err
	}
	seconds := nanos / int64(time.Second)
	if rest := nanos % int64(time.Second); rest < 0 {
		seconds-- // the kernel wants the rest to be positive
	}
	step := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO}
	step.Time.Sec, step.Time.Usec = seconds, nanos-seconds*int64(time.Second)
	if _, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &step); err != nil {
		return fmt.Errorf("step clock by %s: %w", time.Duration(nanos), err)
	}
	return nil
}

// SlewClock adds nanoseconds to the time slowly, in place of what is left of an
// earlier call, at the kernel's 500 µs a second.
func SlewClock(nanos int64) error {
	slew := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: nanos / int64(time.Microsecond)}
	if _, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &slew); err != nil {
		return fmt.Errorf("slew clock by %s: %w", time.Duration(nanos), err)
	}
	return nil
}

// SetHostname names the guest.
func SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "set hostname %q: %w", name, err)
	}
	if err := os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("write hostname: %w", err)
	}
	return nil
}

// SetSysctl takes the name with dots or slashes. A slash within a component,
// as in an interface's name, is written as sysctl(8) does: the first separator
// decides which is which.
func SetSysctl(name, value string) error {
	dot, slash := strings.IndexByte(name, '.'), strings.IndexByte(name, '/')
	if dot >= 0 && (slash < 0 || dot < slash) {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	if !filepath.IsLocal(name) {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "sysctl %q is not valid", name)
	}
	if err := kernfs.Write(filepath.Join("/proc/sys", name), value); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "set sysctl %s to %q: %w", name, value, err)
	}
	return nil
}

// SetNameservers writes the resolver's configuration.
func SetNameservers(addresses []string) error {
	conf := "nameserver " + strings.Join(addresses, "\nnameserver ") + "\n"
	if err := os.WriteFile("/etc/resolv.conf", []byte(conf), 0o644); err != nil {
		return fmt.Errorf("write resolver configuration: %w", err)
	}
	return nil
}

// loopbackUp brings up lo, which containers of a pod share.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// DropCaches has the kernel forget the names and inodes that nobody uses. An inode
// with data in memory is one that is used, unless pages are dropped first.
func DropCaches(pages bool) error {
	const inodes, all = "2", "3"
	what := inodes
	if pages {
		what = all
	}
	// A name that was used since the kernel looked last has a second chance: when all
	// were, the first time only takes that away, and the kernel takes it for the end.
	return errors.Join(kernfs.Write("/proc/sys/vm/drop_caches", what), kernfs.Write("/proc/sys/vm/drop_caches", what))
}

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
