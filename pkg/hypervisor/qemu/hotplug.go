package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
)

// rollbackTimeout bounds the undoing of a failed Plug, whose own context may
// have ended. A guest releases a device within 100 ms when it runs.
const rollbackTimeout = 2 * time.Second

// deviceID matches what [hypervisor.Device] promises.
var deviceID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Plug implements [hypervisor.Plugger]. Beside the monitor's own errors it returns
// errdefs.ErrNotImplemented on a microvm, ErrResourceExhausted when no slot is
// free and ErrAlreadyExists for an id that is taken. Nothing is left of a
// device that could not be plugged, unless ctx ended while the guest had it
// already and keeps it: then Unplug removes it.
func (m *machine) Plug(ctx context.Context, dev hypervisor.Device) error {
	if err := m.plug(ctx, dev); err != nil {
		return m.classify("plug "+dev.DeviceID(), err)
	}
	return nil
}

func (m *machine) plug(ctx context.Context, dev hypervisor.Device) error {
	if m.spec.Machine == hypervisor.MachineMicroVM {
		return fmt.Errorf("machine microvm has no bus to plug into: %w; set [hypervisor] machine = \"q35\"", errdefs.ErrNotImplemented)
	}
	if !deviceID.MatchString(dev.DeviceID()) {
		return fmt.Errorf("bad device id: %w", errdefs.ErrInvalidArgument)
	}
	p, err := m.slots.reserve(dev.DeviceID())
	if err != nil {
		return err
	}
	defer m.slots.idle(p)
	steps, err := plan(dev, p.slot, m.spec)
	if err != nil {
		m.slots.free(p)
		return err
	}
	for _, s := range steps {
		p.steps = append(p.steps, s)
		if err := m.do(ctx, s); err != nil {
			return errors.Join(err, m.rollback(p))
		}
	}
	return nil
}

func (m *machine) do(ctx context.Context, s step) error {
	if s.file != nil {
		return m.monitor.ExecuteFile(ctx, s.command, s.args, nil, s.file)
	}
	return m.monitor.Execute(ctx, s.command, s.args, nil)
}

// rollback undoes the steps of p, the last of which has failed. That one
// may have taken effect nevertheless when its context ended, so it is taken
// back as well and what its inverse says does not matter.
func (m *machine) rollback(p *plugged) error {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	last := len(p.steps) - 1
	if p.steps[last].command == "device_add" {
		if err := m.eject(ctx, p); err != nil && !errors.Is(err, qmp.ErrClosed) {
			return fmt.Errorf("roll back: %w", err) // keeps its slot
		}
	} else {
		_ = m.monitor.Execute(ctx, p.steps[last].undo, p.steps[last].undoArg, nil)
	}
	m.slots.free(p)
	if last == 0 {
		return nil
	}
	if err := m.takeBack(ctx, p.steps[:last]); err != nil && !errors.Is(err, qmp.ErrClosed) {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// takeBack undoes steps, the last one first. What some have passed on to a later one is
// gone with that.
func (m *machine) takeBack(ctx context.Context, steps []step) error {
	used := false
	for _, s := range slices.Backward(steps) {
		if used = used || !s.passedOn; used && s.passedOn {
			continue
		}
		if err := m.monitor.Execute(ctx, s.undo, s.undoArg, nil); err != nil && !s.passedOn {
			return err
		}
	}
	return nil
}

// Unplug implements [hypervisor.Plugger]. When ctx ends before the guest has
// released it the device keeps its slot, and Unplug can be called again.
func (m *machine) Unplug(ctx context.Context, id string) error {
	if err := m.unplug(ctx, id); err != nil {
		return m.classify("unplug "+id, err)
	}
	return nil
}

func (m *machine) unplug(ctx context.Context, id string) error {
	p, err := m.slots.take(id)
	if err != nil {
		return err
	}
	defer m.slots.idle(p)
	if err := m.eject(ctx, p); err != nil {
		return err
	}
	if err := m.takeBack(ctx, p.steps[:len(p.steps)-1]); err != nil {
		return err
	}
	m.slots.free(p)
	return nil
}

// eject asks the guest to release the device and waits until it has.
func (m *machine) eject(ctx context.Context, p *plugged) error {
	select {
	case <-p.gone: // the guest did so before
		return nil
	default:
	}
	again := p.asked
	p.asked = true // also when ctx ends before QEMU answers
	err := m.monitor.Execute(ctx, "device_del", object{"id": qdevID(p.id)}, nil)
	switch {
	case errors.Is(err, &qmp.Error{Class: qmp.ClassDeviceNotFound}):
		return nil // it is gone, and the event on its way
	case again && errors.Is(err, &qmp.Error{}):
		// QEMU does not ask twice while the guest has not answered.
	case errors.Is(err, &qmp.Error{}):
		p.asked = false
		return err
	case err != nil:
		return err
	}
	select {
	case <-p.gone:
		return nil
	case <-m.monitor.Done():
		return m.monitor.Err()
	case <-ctx.Done():
		return fmt.Errorf("the guest does not release it: %w", ctx.Err())
	}
}
