package podvm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// consoleLines is how many of the guest's last lines an error or a log entry has.
const consoleLines = 20

// boot is what one Boot works with.
type boot struct {
	*Machine

	pod         bundle.Pod
	events      client.Events
	shareServer *virtiofsd.Server // nil when QEMU serves the share
	refuse      func(error)       // of the VM's source; nil when the guest boots
	began       time.Time         // the time for the boot
}

// step is one step of a boot.
type step struct {
	phase string // what an error calls it
	do    func(context.Context) error
	name  string // what it does, where that is not what an error says of it
}

// Boot acquires what the pod needs and boots its VM. ctx ends it; events get
// what the guest reports, but for its loss, which is Lost. It is called once.
// After an error the caller releases what there is.
func (m *Machine) Boot(ctx context.Context, pod bundle.Pod, events client.Events) error {
	b := &boot{Machine: m, pod: pod, events: events}
	m.timing.Begin = time.Now()
	for _, s := range []step{
		{phase: "make directory", do: b.createStateDir},
		{phase: "set up cgroup", do: b.setUpCgroup},
		{phase: "open network", do: b.openNetwork},
		{phase: "prepare share", do: b.prepareShare},
		{phase: "start file server", do: b.startShareServer},
		{phase: "start vm", do: func(ctx context.Context) error { return startInTime(ctx, b) }},
	} {
		if err := m.progress.do(ctx, s); err != nil {
			if r, ok := m.opts.Source.(Releaser); ok {
				err = errors.Join(err, r.Release())
			}
			return fmt.Errorf("boot sandbox %s: %w", m.opts.ID, b.explain(err))
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline(b))
	defer cancel()
	for _, s := range []step{
		{phase: "connect network", do: b.connectNetwork}, // while the guest's kernel boots
		{phase: "guest not ready", do: b.connectGuest, name: "wait for guest"},
		{phase: "enter cgroup", do: b.enterCgroup},
		{phase: "plug share", do: b.plugShare},
		{phase: "set up network", do: b.attachNetwork}, // the pod's kernel parameters can be about interfaces
		{phase: "start pod", do: b.startPod},
		{phase: "open share", do: b.enterShare},
		{phase: "set clock", do: b.keepClock},
	} {
		if err := m.progress.do(ctx, s); err != nil {
			return b.describe(s.phase, err)
		}
	}
	ctx = activity.Without(ctx) // what begins now goes on for as long as the pod
	m.network.Follow(ctx, m.dns.Refresh)
	b.forwardPorts(ctx)
	watchShare(ctx, b)
	watchVolumes(ctx, b)
	b.logTiming(ctx)
	m.progress.reached(m.guest, originOf(b))
	note(m, "ready", "source "+originOf(b)+", after "+time.Since(m.timing.Begin).Round(time.Millisecond).String())
	return nil
}

// startInTime is startVM within the time for the boot.
func startInTime(ctx context.Context, b *boot) error {
	b.began = time.Now()
	ctx, cancel := context.WithDeadline(ctx, deadline(b))
	defer cancel()
	return b.startVM(ctx)
}

// deadline is the end of the time for the boot. A guest that need not boot gets its part
// beside, so that one that boots instead has as much as any other.
func deadline(b *boot) time.Time {
	timeout := b.opts.Config.BootTimeout
	if b.refuse != nil {
		timeout += timeout / restoredPart
	}
	return b.began.Add(timeout)
}

// endGrace is how much later than the connection to the guest the end of the
// VMM may be noticed.
const endGrace = 200 * time.Millisecond

// describe tells an operator how far the boot came, and what the guest said. The
// end of something that the VM depends on says more than err, which is what came
// of it.
func (b *boot) describe(phase string, err error) error {
	took := time.Since(b.timing.Begin).Round(time.Millisecond)
	text := fmt.Sprintf("boot sandbox %s: %s after %s", b.opts.ID, phase, took)
	if vm := b.running(); vm != nil { // one that was refused may have no successor
		select {
		case <-vm.Done():
			err = vmEnded(vm)
		case <-time.After(endGrace):
			if cause := b.Err(); cause != nil {
				err = cause
			}
		}
	}
	err = b.explain(err)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w (raise [guest] boot_timeout if the host is only slow)", err)
	}
	if lines := b.Console(); len(lines) > 0 {
		return fmt.Errorf("%s: %w; last console lines:\n  %s", text, err, strings.Join(lines, "\n  "))
	}
	return fmt.Errorf("%s: %w; the guest's console is empty", text, err)
}

// vmEnded describes how the VMM ended.
func vmEnded(vm hypervisor.VM) error {
	return &partError{fmt.Errorf("vm ended by itself: qemu %s", vm.Exit()), partVMM}
}

// originOf is where the VM comes from.
func originOf(b *boot) string {
	switch {
	case b.refuse == nil:
		return "boot"
	case adopted(b.running()):
		return "spare"
	default:
		return "template"
	}
}

// logTiming writes the phases of the boot as one line.
func (b *boot) logTiming(ctx context.Context) {
	t := b.timing
	log.G(ctx).WithFields(log.Fields{
		"sandbox": b.opts.ID,
		"dialect": b.guest.Dialect().String(),
		"accel":   string(b.opts.Config.Spec.Accelerator),
		"source":  originOf(b),
		"prepare": t.VM.Exec.Sub(t.Begin).String(),
		"monitor": t.VM.Monitor.Sub(t.VM.Exec).String(),
		"ready":   t.Ready.Sub(t.VM.Monitor).String(),
		"plug":    t.Plugged.Sub(t.Ready).String(),
		"network": t.Network.Sub(t.Plugged).String(),
		"pod":     t.Pod.Sub(t.Network).String(),
		"took":    t.Pod.Sub(t.Begin).String(),
	}).Info("sandbox ready")
}
