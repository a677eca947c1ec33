package agent

import (
	"bufio"
	"bytes"
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

func prepareCgroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return enableControllers(dir)
}

// killCgroup kills all processes below dir at once. A cgroup that does not
// exist has none.
func killCgroup(dir string) error {
	err := kernfs.Write(filepath.Join(dir, "cgroup.kill"), "1")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// signalCgroup signals every process below dir. Processes that end meanwhile
// are no error.
func signalCgroup(dir string, sig unix.Signal) error {
	pids, err := cgroupPIDs(dir)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return hyperstart.Errorf(hyperstart.ClassNotFound, "%w", errExited)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// cgroupPIDs lists the processes of dir and of the cgroups below it.
func cgroupPIDs(dir string) ([]int, error) {
	var pids []int
	err := walkCgroups(dir, func(dir string) error {
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

// gone reports that a cgroup was removed while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// walkCgroups calls visit for dir after everything below it.
func walkCgroups(dir string, visit func(dir string) error) error {
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
		if err := walkCgroups(filepath.Join(dir, e.Name()), visit); err != nil {
			return err
		}
	}
	return visit(dir)
}

// removeDeadline bounds the wait for killed processes to leave their cgroup.
const removeDeadline = 5 * time.Second

// removeCgroup removes dir and the cgroups below it, waiting for processes
// that were killed to leave.
func removeCgroup(dir string) error {
	deadline := time.Now().Add(removeDeadline)
	for {
		err := walkCgroups(dir, func(dir string) error {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
			return nil
		})
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := awaitEmpty(dir); err != nil {
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

// ioStats parses io.stat: "major:minor key=value ..." per line.
func ioStats(b []byte) []hyperstart.IOStats {
	var all []hyperstart.IOStats
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		var dev hyperstart.IOStats
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &dev.Major, &dev.Minor); err != nil {
			continue
		}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				dev.RBytes = n
			case "wbytes":
				dev.WBytes = n
			case "rios":
				dev.RIOs = n
			case "wios":
				dev.WIOs = n
			}
		}
		all = append(all, dev)
	}
	return all
}

// readStats reads the files of a cgroup. A file that is missing, because its
// controller is, leaves its numbers 0.
func readStats(dir string) (*hyperstart.Stats, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil
		}
		return b
	}
	return &hyperstart.Stats{
		CPU:           kernfs.FlatKeyed(read("cpu.stat")),
		Memory:        kernfs.FlatKeyed(read("memory.stat")),
		MemoryCurrent: kernfs.Number(read("memory.current")),
		MemoryMax:     kernfs.Number(read("memory.max")),
		MemoryPeak:    kernfs.Number(read("memory.peak")),
		SwapCurrent:   kernfs.Number(read("memory.swap.current")),
		SwapMax:       kernfs.Number(read("memory.swap.max")),
		MemoryEvents:  kernfs.FlatKeyed(read("memory.events")),
		PIDsCurrent:   kernfs.Number(read("pids.current")),
		PIDsMax:       kernfs.Number(read("pids.max")),
		IO:            ioStats(read("io.stat")),
	}, nil
}
