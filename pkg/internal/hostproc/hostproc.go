package hostproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is a process on the host. The start time tells it from a later
// process with the same pid.
type Process struct {
	Name  string `json:"name"` // for messages
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// Of identifies a running process. It may be a zombie: its other threads may
// still run.
func Of(name string, pid int) (Process, error) {
	start, _, err := stat(pid)
	return Process{Name: name, PID: pid, Start: start}, err
}

// Alive reports whether the very process still exists; a zombie does not count.
func (p Process) Alive() bool {
	start, zombie, err := stat(p.PID)
	return err == nil && !zombie && start == p.Start
}

// IsParent reports whether the very process still exists and has a child with a pid,
// which may be a zombie.
func (p Process) IsParent(pid int) bool {
	fields, err := fields(pid)
	if err != nil || !p.Alive() {
		return false
	}
	const parentField = 4 - 3
	return string(fields[parentField]) == strconv.Itoa(p.PID)
}

// Kill ends the process with SIGKILL and waits until it is gone. A process
// that is gone already, or whose pid has a new owner, is not an error.
func (p Process) Kill(ctx context.Context) error {
	return p.await(ctx, func(fd int) error {
		err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %s (pid %d): %w", p.Name, p.PID, err)
		}
		return nil
	})
}

// Wait waits until the process is gone.
func (p Process) Wait(ctx context.Context) error {
	return p.await(ctx, func(int) error { return nil })
}

// await calls begin with the very process, when it is there, and waits until it
// is gone.
func (p Process) await(ctx context.Context, begin func(fd int) error) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s (pid %d): %w", p.Name, p.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// Checked with the pidfd open, so the pid cannot change hands now. A zombie
	// is waited for as well: its threads may still hold files and memory, and
	// be part of a cgroup. One that cannot be looked at is gone.
	if start, _, err := stat(p.PID); err != nil || start != p.Start {
		return nil
	}
	if err := begin(fd); err != nil {
		return err
	}
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		const step = 100 // ms between looks at ctx
		n, err := unix.Poll(fds, step)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for %s (pid %d): %w", p.Name, p.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("wait for the end of %s (pid %d): still there: %w", p.Name, p.PID, ctx.Err())
}

// gone reports whether pidfd_open says that there is no such process. Kernels before 6.16
// say EINVAL of one that is just being released, and all of them, in the one way or the
// other, of a thread that has got its pid.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}

// stat reads the state and the start time, fields 3 and 22, of /proc/PID/stat.
// A zombie's first thread has ended.
func stat(pid int) (start uint64, zombie bool, err error) {
	fields, err := fields(pid)
	if err != nil {
		return 0, false, err
	}
	start, err = strconv.ParseUint(string(fields[startField]), 10, 64)
	return start, string(fields[0]) == "Z", err
}

const startField = 22 - 3 // the first field after the name is number 3

// fields are those of /proc/PID/stat after the name, at least as far as startField.
func fields(pid int) ([][]byte, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, fmt.Errorf("read process: %w", err)
	}
	// The name in parentheses may contain anything, so count from its end.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= startField {
		return nil, fmt.Errorf("read process %d: stat has %d fields", pid, len(fields))
	}
	return fields, nil
}
