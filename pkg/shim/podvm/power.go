package podvm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestclock"
)

// powerOffTimeout bounds the guest's orderly end; a guest that is slower loses
// nothing that was written through.
const powerOffTimeout = 2 * time.Second

// PowerOff asks the guest to write its data and to end. It returns when the data
// is written, or powerOffTimeout is over; the VMM is still to be killed.
func (m *Machine) PowerOff(ctx context.Context) {
	if m.guest == nil || m.Paused() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	synced, err := m.guest.StopPod(ctx)
	if err != nil {
		log.G(ctx).WithError(err).Debug("power off guest")
		return
	}
	if synced {
		return // the rest of its end only takes time
	}
	select {
	case <-m.running().Done():
	case <-ctx.Done():
	}
}

// Kill ends the VMM, if there is one, and waits for it. The VM is lost for that
// cause, unless it is already: how the VMM ends says nothing then.
func (m *Machine) Kill(ctx context.Context, cause error) {
	vm := m.running()
	if vm == nil {
		return
	}
	m.loss.report(cause)
	ctx, cancel := vmmContext(ctx) // a QEMU that hangs in the kernel outlasts it
	defer cancel()
	if err := vm.Kill(ctx); err != nil {
		log.G(ctx).WithError(err).Error("kill vm")
	}
}

// Paused reports whether the vCPUs are stopped, or about to be.
func (m *Machine) Paused() bool { return m.vcpus.isPaused() }

// Pause stops the vCPUs. From its begin on commands for the guest are refused
// with errdefs.ErrFailedPrecondition. It needs a Boot that has succeeded.
func (m *Machine) Pause(ctx context.Context) error {
	if err := m.vcpus.begin(ctx); err != nil {
		return fmt.Errorf("pause vm: %w", err)
	}
	defer m.vcpus.end()
	ctx, cancel := vmmContext(ctx)
	defer cancel()
	m.vcpus.set(true) // before the fact: who has to reach a process must know
	if err := m.running().Pause(ctx); err != nil {
		again, cancel := vmmContext(ctx)
		defer cancel()
		if m.running().Resume(again) == nil { // it may have been carried out
			m.vcpus.set(false)
		}
		return err
	}
	note(m, "vm-paused", "the vcpus are stopped")
	return nil
}

// vmmTimeout bounds a command of the VMM, which answers at once.
const vmmTimeout = 10 * time.Second

// vmmContext is the context of a command of the VMM. It is awaited when its
// caller has gone, too: the VMM carries it out in any case.
func vmmContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), vmmTimeout)
}

// Resume starts the vCPUs again, and gives the guest the time that it has missed. It
// waits for a Pause that is under way. It needs a Boot that has succeeded.
func (m *Machine) Resume(ctx context.Context) error {
	if err := startCPUs(ctx, m); err != nil {
		return err
	}
	m.setClock(ctx)
	return nil
}

// clockTimeout bounds the wait for a guest to set its clock, which it does at once.
const clockTimeout = 2 * time.Second

// setClock returns when the guest has the host's time. One that does not take it is
// asked again, and nothing waits for it.
func (m *Machine) setClock(ctx context.Context) {
	if m.vcpus.clock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	m.vcpus.clock.Set(ctx)
}

// startCPUs starts the vCPUs.
func startCPUs(ctx context.Context, m *Machine) error {
	if err := m.vcpus.begin(ctx); err != nil {
		return fmt.Errorf("resume vm: %w", err)
	}
	defer m.vcpus.end()
	ctx, cancel := vmmContext(ctx)
	defer cancel()
	if err := m.running().Resume(ctx); err != nil {
		return err
	}
	m.vcpus.set(false)
	note(m, "vm-resumed", "the vcpus run")
	return nil
}

// vcpus is whether the vCPUs run.
type vcpus struct {
	turn chan struct{} // has room for one: who pauses or resumes
	// clock is kept for the guest, whose own stands still with the vCPUs. nil for a
	// guest without; Boot sets it.
	clock *guestclock.Keeper

	mu     sync.Mutex // guards paused
	paused bool       // stopped, or about to be
}

// begin waits until nobody else pauses or resumes.
func (v *vcpus) begin(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *vcpus) end() { <-v.turn }

func (v *vcpus) set(paused bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.paused = paused
}

func (v *vcpus) isPaused() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paused
}
