package sandboxtest

import (
	"context"
	"maps"
	"sync"
	"syscall"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// Placeholder is a [sandbox.Placeholder] without processes.
type Placeholder struct {
	machine    *Machine
	newNetwork bool

	mu   sync.Mutex // guards live
	live map[string]OnHost
}

// OnHost is a process on the host.
type OnHost struct {
	placeholder.Identity

	PID        int
	Signal     func(syscall.Signal) // as if it was sent to the process
	NewNetwork bool                 // its network namespace is not the machine's
}

// Placeholder implements [sandbox.Host].
func (m *Machine) Placeholder(c placeholder.Container) (sandbox.Placeholder, error) {
	defer c.Close()
	if err := m.step(context.Background(), "placeholder"); err != nil {
		return nil, err
	}
	p := &Placeholder{machine: m, newNetwork: c.NewNetwork, live: make(map[string]OnHost)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onHost = append(m.onHost, p)
	return p, nil
}

// OnHost are all processes on the host that have not ended, by their pids.
func (m *Machine) OnHost() map[int]OnHost {
	m.mu.Lock()
	all := m.onHost
	m.mu.Unlock()
	live := make(map[int]OnHost)
	for _, p := range all {
		p.mu.Lock()
		for process := range maps.Values(p.live) {
			live[process.PID] = process
		}
		p.mu.Unlock()
	}
	return live
}

// Start implements [sandbox.Placeholder].
func (p *Placeholder) Start(name string, id placeholder.Identity, signalled func(syscall.Signal)) (int, error) {
	if err := p.machine.step(context.Background(), "appear"); err != nil {
		return 0, err
	}
	p.machine.mu.Lock()
	p.machine.pids++
	pid := VMMPID + p.machine.pids
	p.machine.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[name] = OnHost{Identity: id, PID: pid, Signal: signalled, NewNetwork: p.newNetwork}
	return pid, nil
}

// End implements [sandbox.Placeholder].
func (p *Placeholder) End(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, name)
}

// Mirror implements [sandbox.Placeholder]: a pid is the guest's, negative.
func (p *Placeholder) Mirror(list []placeholder.Mirrored) []int {
	pids := make([]int, 0, len(list))
	for _, m := range list {
		pids = append(pids, -m.GuestPID)
	}
	return pids
}

// Close implements [sandbox.Placeholder].
func (p *Placeholder) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.live)
}
