package podvm

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// driver makes VMs whose guest is an agent in this process. A child process
// stands for the VMM, so that it can be recorded and killed.
type driver struct {
	t     testing.TB
	agent *agent
	// fail names the step that fails: "start", "connect", "ready", "plug".
	fail string
	// started, when set, is told when Start was called, and what it returns is
	// waited for.
	started func() <-chan struct{}

	mu sync.Mutex // guards vms
	vm *machine
}

func (d *driver) Probe(context.Context, string) (hypervisor.Capabilities, error) {
	return hypervisor.Capabilities{}, nil
}

// Start implements [hypervisor.Driver].
func (d *driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	if d.started != nil {
		select {
		case <-d.started():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if d.fail == "start" {
		return nil, errors.New("no vmm today")
	}
	m := &machine{driver: d, done: make(chan struct{})}
	for _, port := range spec.Ports {
		if d.fail == "connect" {
			break
		}
		l, err := net.Listen("unix", port.Socket)
		if err != nil {
			return nil, err
		}
		m.listeners = append(m.listeners, l)
	}
	m.cmd = exec.Command("cat")
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	m.stdin = stdin
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if spec.Setup != nil {
		if err := spec.Setup(m.cmd.Process.Pid); err != nil {
			return nil, err
		}
	}
	go m.wait()
	if len(m.listeners) == 2 && d.fail != "ready" {
		go m.guest()
	}
	d.mu.Lock()
	d.vm = m
	d.mu.Unlock()
	return m, nil
}

func (d *driver) machine() *machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vm
}

// machine is one VM.
type machine struct {
	driver    *driver
	cmd       *exec.Cmd
	stdin     io.Closer
	listeners []net.Listener
	done      chan struct{}

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	over  bool
}

// guest accepts the host's connections and is the guest.
func (m *machine) guest() {
	var ports []net.Conn
	for _, l := range m.listeners {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		m.conns = append(m.conns, conn)
		over := m.over
		m.mu.Unlock()
		if over {
			_ = conn.Close()
		}
		ports = append(ports, conn)
	}
	a := m.driver.agent
	a.mu.Lock()
	a.poweroff = m.die
	a.mu.Unlock()
	a.serve(ports[0], ports[1])
}

// wait reaps the child; its end is that of the machine.
func (m *machine) wait() {
	_ = m.cmd.Wait() // killed, as a rule
	m.mu.Lock()
	m.over = true
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	for _, l := range m.listeners {
		_ = l.Close()
	}
	close(m.done)
}

// die ends the machine as if by itself.
func (m *machine) die() { _ = m.cmd.Process.Kill() }

func (m *machine) PID() int                      { return m.cmd.Process.Pid }
func (m *machine) Done() <-chan struct{}         { return m.done }
func (m *machine) ConsoleTail(int) []string      { return []string{"a line of the console"} }
func (m *machine) Timeline() hypervisor.Timeline { return hypervisor.Timeline{Exec: time.Now()} }
func (m *machine) Exit() hypervisor.Exit {
	select {
	case <-m.done:
		return hypervisor.Exit{Signal: 9}
	default:
		return hypervisor.Exit{}
	}
}

func (m *machine) Plug(context.Context, hypervisor.Device) error { return nil }
func (m *machine) Unplug(context.Context, string) error          { return nil }
func (m *machine) Pause(context.Context) error                   { return nil }
func (m *machine) Resume(context.Context) error                  { return nil }

func (m *machine) Kill(ctx context.Context) error {
	m.die()
	select {
	case <-m.done:
		_ = m.stdin.Close()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
