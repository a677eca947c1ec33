package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Group is the control group of a container with those below it, by its absolute
// path.
type Group string

// Kill kills all processes at once. A group that does not exist has none.
func (g Group) Kill() error {
	err := kernfs.Write(filepath.Join(string(g), "cgroup.kill"), "1")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Signal signals every process. Those that end meanwhile are not an error.
func (g Group) Signal(sig unix.Signal) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "process already finished")
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// PIDs lists the processes.
func (g Group) PIDs() ([]int, error) {
	var pids []int
	err := walk(string(g), func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			// A threaded cgroup has no list of its own; its parent has it.
			if errors.Is(err, unix.EOPNOTSUPP) || gone(err) {
				return nil
			}
			return err
		}
		for line := range strings.FieldsSeq(string(b)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("read cgroup.procs: %w", err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	return pids, err
}

// gone reports that a group was removed meanwhile.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// walk calls visit for dir after everything below it.
func walk(dir string, visit func(dir string) error) error {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := walk(filepath.Join(dir, e.Name()), visit); err != nil {
			return err
		}
	}
	return visit(dir)
}

// removeDeadline bounds the wait for killed processes to leave their group.
const removeDeadline = 5 * time.Second

// Remove removes the group, waiting for processes that were killed to leave.
func (g Group) Remove() error {
	deadline := time.Now().Add(removeDeadline)
	for {
		err := walk(string(g), func(dir string) error {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
			return nil
		})
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := awaitEmpty(string(g)); err != nil {
			return err
		}
	}
}

// awaitEmpty waits until the cgroup's population may have changed. It also
// returns after a short time, for a change that preceded the call.
func awaitEmpty(dir string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	const millis = 50
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, millis)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}
