package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// The probe's sandbox has a state directory of its own.
const (
	namespace = "check"
	probeID   = "probe"
)

// boot tries VMs as a shim has them, one that boots and one from a template. The overhead is
// that of the first: where a template cannot be used, a pod's VM boots, and must have room.
func (c *checker) boot(ctx context.Context) error {
	// The errors say what goes wrong; the log would say it again.
	if err := log.SetLevel("fatal"); err != nil {
		return err
	}
	p, err := c.probe(ctx, podvm.Cold{Driver: c.driver})
	if err != nil {
		return err
	}
	c.printBoot(p.timing, p.info)
	if err := c.bootFromTemplate(ctx); err != nil {
		return err
	}
	c.printMemory(p.use, p.info)
	return nil
}

// sandboxUse is what is known of a VM that has ended.
type sandboxUse struct {
	timing podvm.Timing
	info   hyperstart.GuestInfoReply
	use    footprint
}

// probe starts a VM just as a shim does, asks its guest, measures, and releases everything.
func (c *checker) probe(ctx context.Context, source podvm.Source) (p sandboxUse, err error) {
	dir, remove, err := tempDir(c.config.StateDir)
	if err != nil {
		return p, err
	}
	defer remove()
	vm, err := vmconfig.Of(c.config, c.accel)
	if err != nil {
		return p, err
	}
	vm.ProxySocket = true // through which the guest is asked
	m := podvm.New(podvm.Options{Namespace: namespace, ID: probeID, StateDir: dir, Source: source, Config: vm})
	defer func() { err = errors.Join(err, stop(m)) }()
	if err := m.Boot(ctx, bundle.Pod{}, client.Events{}); err != nil {
		return p, err
	}
	if p.info, err = guestInfo(ctx, m, vm.CallTimeout); err != nil {
		return p, err
	}
	p.timing = m.Timing()
	p.use, err = c.measure(dir)
	return p, err
}

// stop ends the probe even when the command was interrupted.
func stop(m *podvm.Machine) error {
	const limit = 10 * time.Second // 2 s for the guest, 4 s for cleaning up, and room
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	m.PowerOff(ctx)
	m.Kill(ctx, errors.New("the probe is over"))
	return m.Release(ctx)
}

// guestInfo asks the guest about itself, through the socket that any tool of
// an operator uses.
func guestInfo(ctx context.Context, m *podvm.Machine, limit time.Duration) (hyperstart.GuestInfoReply, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var info hyperstart.GuestInfoReply
	frames := client.NewFrames(probeID, func() (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.ProxySocket())
	})
	answer, err := frames.Hyper(ctx, "guestinfo", "", nil)
	if err != nil {
		return info, fmt.Errorf("ask guest: %w", err)
	}
	if err := json.Unmarshal(answer, &info); err != nil {
		return info, fmt.Errorf("ask guest: %w", printable.Error(err, printable.MaxText))
	}
	info.Kernel = printable.Line(info.Kernel, printable.MaxName)
	info.AgentVersion = printable.Line(info.AgentVersion, printable.MaxName)
	return info, nil
}

// footprint is the memory of a sandbox without containers, by process.
type footprint struct {
	qemu, virtiofsd, shim memory
}

// measure measures the sandbox. This process represents the shim, which has the
// same proxy and driver in it.
func (c *checker) measure(dir string) (footprint, error) {
	var u footprint
	state, err := store.DirOf(dir, namespace, probeID).Load()
	if err != nil {
		return u, err
	}
	ram := int64(c.config.VM.MemoryMiB) << 20
	for _, p := range state.Processes {
		m, err := memoryOf(ram, p.PID)
		if err != nil {
			return u, err
		}
		if p.Name == "qemu" {
			u.qemu = u.qemu.plus(m)
		} else {
			u.virtiofsd = u.virtiofsd.plus(m)
		}
	}
	b, err := os.ReadFile("/proc/self/smaps")
	u.shim = parseSmaps(string(b), ram)
	return u, err
}

func (c *checker) printBoot(t podvm.Timing, info hyperstart.GuestInfoReply) {
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	c.report("probe vm", ok("%s, agent %s, ready for containers after %s", info.Kernel, info.AgentVersion, ms(t.Pod.Sub(t.Begin))))
	for _, phase := range []struct {
		name string
		took time.Duration
	}{
		{"prepare directory, start virtiofsd", t.VM.Exec.Sub(t.Begin)},
		{"start QEMU until its monitor answers", t.VM.Monitor.Sub(t.VM.Exec)},
		{"kernel until the agent says READY", t.Ready.Sub(t.VM.Monitor)},
		{"plug the shared file system", t.Plugged.Sub(t.Ready)},
		{"start the pod", t.Pod.Sub(t.Plugged)},
	} {
		fmt.Fprintf(c.out, "%21s%-38s %8s\n", "", phase.name, ms(phase.took))
	}
}

func (c *checker) printMemory(u footprint, info hyperstart.GuestInfoReply) {
	guest := u.qemu.guest + u.virtiofsd.guest
	all := u.qemu.plus(u.virtiofsd).plus(u.shim)
	c.report("memory", ok("of a sandbox without containers, as share of the host's (PSS)"))
	for _, part := range []struct {
		name  string
		bytes int64
	}{
		{"QEMU without the guest's memory", u.qemu.total - u.qemu.guest},
		{"virtiofsd", u.virtiofsd.total - u.virtiofsd.guest},
		{"shim (this process in its place)", u.shim.total},
		{"overhead outside of the guest", all.total - guest},
		{"guest: kernel, image and agent", guest},
	} {
		fmt.Fprintf(c.out, "%21s%-38s %6.1f MiB\n", "", part.name, mib(part.bytes))
	}
	fmt.Fprintf(c.out, "%21s%-38s %6.1f MiB of %.1f\n", "", "guest: free for containers", mib(int64(info.MemAvailable)), mib(int64(info.MemTotal)))
	c.podFixed = podFixed(all.total)
	fmt.Fprintf(c.out, "\nFor the RuntimeClass, which the scheduler adds to what the containers of a pod ask for:\n\n"+
		"  overhead:\n    podFixed:\n      memory: %dMi\n", c.podFixed)
}

// podFixed rounds up to what is easy to read, with room for what the kernel
// has for the processes and PSS does not count, such as page tables.
func podFixed(bytes int64) int64 {
	const step, reserve = 16, 8 // MiB
	return (int64(mib(bytes)) + reserve + step) / step * step
}
