package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (a *Agent) statsContainer(_ context.Context, payload []byte) ([]byte, error) {
	c, err := a.ref(payload)
	if err != nil {
		return nil, err
	}
	stats, err := c.group.Stats()
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "read statistics of container %s: %w", c.id, err)
	}
	return json.Marshal(stats)
}

func (a *Agent) listProcesses(_ context.Context, payload []byte) ([]byte, error) {
	c, err := a.ref(payload)
	if err != nil {
		return nil, err
	}
	pids, err := c.group.PIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", c.id, err)
	}
	ids := c.processIDs()
	list := hyperstart.ProcessList{Processes: make([]hyperstart.ProcessInfo, 0, len(pids))}
	for _, pid := range pids {
		list.Processes = append(list.Processes, hyperstart.ProcessInfo{PID: pid, Process: ids[pid]})
	}
	return json.Marshal(list)
}

// maxStacks bounds a stack dump; it fits in a control message.
const maxStacks = 1 << 20

func (a *Agent) dumpStacks(context.Context, []byte) ([]byte, error) {
	for size := 64 << 10; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= maxStacks {
			return b[:n], nil
		}
	}
}

func (a *Agent) guestInfo(context.Context, []byte) ([]byte, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel release: %w", err)
	}
	info := hyperstart.GuestInfoReply{
		Kernel:       unix.ByteSliceToString(uts.Release[:]),
		AgentVersion: a.version,
		BootMillis:   a.bootMillis,
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	info.MemTotal, info.MemAvailable = kernfs.KiB(mem, "MemTotal:"), kernfs.KiB(mem, "MemAvailable:")
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	info.AgentRSS = kernfs.KiB(status, "VmRSS:")
	return json.Marshal(info)
}

// fileRequest is the payload of READFILE, and of WRITEFILE before the content.
type fileRequest struct {
	Container string `json:"container"` // "" means the guest itself
	File      string `json:"file"`
}

func (a *Agent) readFile(_ context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[fileRequest](payload)
	if err != nil {
		return nil, err
	}
	f, err := a.openFile(req, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAnswer+1)) // the mux refuses what is too long
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.File, err)
	}
	return b, nil
}

func (a *Agent) writeFile(_ context.Context, payload []byte) ([]byte, error) {
	// The content follows the JSON object immediately.
	d := json.NewDecoder(bytes.NewReader(payload))
	var req fileRequest
	if err := d.Decode(&req); err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode payload: %w", err)
	}
	f, err := a.openFile(req, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(payload[d.InputOffset():])
	return nil, errors.Join(err, f.Close())
}

// openFile opens a file as a container's processes see it. No link leads out
// of the container.
func (a *Agent) openFile(req fileRequest, flags int) (*os.File, error) {
	root := "/"
	if req.Container != "" {
		c, err := a.find(req.Container)
		if err != nil {
			return nil, err
		}
		p, err := c.process(hyperstart.InitProcess)
		if err != nil {
			return nil, err
		}
		if !p.alive() {
			return nil, hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.current())
		}
		root = fmt.Sprintf("/proc/%d/root", p.pid)
	}
	return openBelow(root, req.File, flags)
}

// openBelow opens a file as if root were the root directory.
func openBelow(root, file string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY), Resolve: unix.RESOLVE_IN_ROOT}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o644
	}
	fd, err := unix.Openat2(dir, file, &how)
	if errors.Is(err, unix.ENOENT) {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "open %s: %w", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	return os.NewFile(uintptr(fd), file), nil
}

func (a *Agent) onlineCPUMem(context.Context, []byte) ([]byte, error) {
	return nil, machine.OnlineCPUMem()
}
