package podvm

import (
	"context"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// plugger plugs into the VM of a machine, and notes it.
type plugger struct {
	hypervisor.Plugger

	machine *Machine
}

// pluggerOf is where what the pod needs is plugged.
func pluggerOf(m *Machine) hypervisor.Plugger {
	return plugger{Plugger: hypervisor.PluggerOf(m.running()), machine: m}
}

// Plug implements [hypervisor.Plugger].
func (p plugger) Plug(ctx context.Context, dev hypervisor.Device) error {
	err := p.Plugger.Plug(ctx, dev)
	what := "device " + dev.DeviceID()
	switch d := dev.(type) {
	case hypervisor.NetDevice:
		what += ", an interface with the address " + d.MAC
	case hypervisor.FSDevice:
		what += ", the share"
	case hypervisor.BlockDevice:
		what += ", a disk"
	}
	p.note("plug", what, err)
	return err
}

// Unplug implements [hypervisor.Plugger].
func (p plugger) Unplug(ctx context.Context, id string) error {
	err := p.Plugger.Unplug(ctx, id)
	p.note("unplug", "device "+id, err)
	return err
}

func (p plugger) note(kind, what string, err error) {
	if err != nil {
		what = fmt.Sprintf("%s: failed: %v", what, err)
	}
	note(p.machine, kind, what)
}
