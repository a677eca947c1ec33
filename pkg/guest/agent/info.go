package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/commands"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (a *Agent) getVersion(context.Context, []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2), nil
}

// adjustClock corrects the guest's clock, and reads it.
func adjustClock(_ context.Context, req hyperstart.AdjustClockRequest) (reply hyperstart.AdjustClockReply, err error) {
	switch {
	case req.Step != 0 && req.Slew != 0:
		err = hyperstart.Errorf(hyperstart.ClassInvalidArgument, "a clock is adjusted by a step or slowly")
	case req.Step != 0:
		err = machine.StepClock(req.Step)
	case req.Slew != 0:
		err = machine.SlewClock(req.Slew)
	}
	return hyperstart.AdjustClockReply{Now: time.Now().UnixNano()}, err
}

// dropCaches has the kernel forget files that nobody uses.
func dropCaches(_ context.Context, req hyperstart.DropCachesRequest) error {
	return machine.DropCaches(req.Pages)
}

// reseed makes the guest's random numbers its own.
func reseed(_ context.Context, req hyperstart.ReseedRequest) error {
	return machine.Reseed(req.Entropy)
}

// online brings up what was plugged, and waits for what the host names.
func (a *Agent) online(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) == 0 { // of a host that is older than ccv2
		return nil, machine.OnlineCPUMem()
	}
	return commands.Command(func(ctx context.Context, req hyperstart.OnlineRequest) error {
		return a.machine.Online(ctx, req.CPUs, req.MemoryMiB)
	})(ctx, payload)
}

// maxStacks bounds a stack dump; it fits in a control message.
const maxStacks = 1 << 20

// dumpStacks returns those of the agent's goroutines, or the kernel's tasks.
func (a *Agent) dumpStacks(_ context.Context, payload []byte) ([]byte, error) {
	if len(payload) > 0 {
		req, err := hyperstart.Decode[hyperstart.DumpStacksRequest](payload)
		if err != nil {
			return nil, err
		}
		if req.Kernel {
			return machine.KernelTasks()
		}
	}
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
