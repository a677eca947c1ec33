package machine

import (
	"context"
	"os"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// Machine is the guest without what runs in it.
type Machine struct {
	events  *uevents
	modules string        // the image's list
	shared  chan struct{} // closed when the modules of the share are loaded

	booted sizes // what the guest has booted with

	net, late, plug, iptables sync.Once // load modules that not every guest needs
}

// Boot does what is needed to find the ports, and no more: it is part of every
// pod's start time. It is to be called once, by PID 1.
func Boot() (*Machine, error) {
	if err := moveRoot(); err != nil {
		return nil, err
	}
	if err := mountAll(earlyMounts); err != nil {
		return nil, err
	}
	modules, err := readModuleList()
	if err != nil {
		return nil, err
	}
	m := &Machine{modules: modules, shared: make(chan struct{})}
	m.events, err = openUevents(func() { m.load(&m.net, layout.PhaseNet) })
	if err != nil {
		return nil, err
	}
	go m.events.run() // ends with the VM
	if m.booted, err = inUse(); err != nil {
		return nil, err
	}
	boot := layout.ModulesOf(modules, layout.PhaseBoot)
	if !hasPCI() {
		boot = append(boot, layout.ModulesOf(modules, layout.PhaseMMIO)...)
	}
	return m, loadModules(boot)
}

// Prepare does what is needed to run containers, while the host reacts to READY.
func (m *Machine) Prepare() error {
	// Tuning comes first because it makes the rest faster.
	steps := []func() error{
		tune, func() error { return mountAll(lateMounts) }, linkDev, linkModprobe, loopbackUp, makeDirs,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes the agent's directories. Users of containers with a user
// namespace pass through the first to the share.
func makeDirs() error {
	if err := os.MkdirAll(layout.RunDir, 0o711); err != nil {
		return err
	}
	return os.Mkdir(layout.ContainersDir, 0o700)
}

// Wait returns when check reports true or fails, or when ctx ends. It calls check
// at once and after every event of the kernel.
func (m *Machine) Wait(ctx context.Context, check func() (bool, error)) error {
	return m.events.wait(ctx, check)
}
