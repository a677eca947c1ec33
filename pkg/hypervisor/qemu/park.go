package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/internal/child"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// A machine that is parked has a second monitor, on a socket in its directory, and gets one
// for its console when it is left. Both follow the directory when that is renamed.

var (
	_ hypervisor.Parker  = (*machine)(nil)
	_ hypervisor.Adopted = (*machine)(nil)
	_ hypervisor.Adopter = (*Driver)(nil)
)

// parker is the [hypervisor.Parker] of a machine, and says whether it was one's.
type parker struct{ m *machine }

// Park implements [hypervisor.Parker].
func (p parker) Park(ctx context.Context) error {
	m := p.m
	console := object{"type": "socket", "data": object{
		"addr":   object{"type": "unix", "data": object{"path": consoleSocket(m.spec)}},
		"server": true, "wait": false,
	}}
	err := m.monitor.Execute(ctx, "stop", nil, nil)
	if err == nil {
		err = m.monitor.Execute(ctx, "chardev-change", object{"id": "console", "backend": console}, nil)
	}
	if err != nil {
		return m.classify("park vm", err)
	}
	m.parked.Store(true)
	if err := m.monitor.Close(); err != nil {
		return fmt.Errorf("park vm: %w", err)
	}
	<-m.done
	return nil
}

// Adopted implements [hypervisor.Adopted].
func (p parker) Adopted() bool { return p.m.spec.Parked }

// Adopt implements [hypervisor.Adopter]. The spec is that of the start, but for ID and Dir.
func (*Driver) Adopt(ctx context.Context, spec hypervisor.Spec, process hostproc.Process) (hypervisor.VM, error) {
	spec.Parked = true
	proc, err := child.Adopt(process)
	if err != nil {
		removeSockets(spec)
		return nil, fmt.Errorf("adopt qemu: %w", err)
	}
	m := newMachine(spec, proc)
	tty, ttyErr := dialSocket(ctx, consoleSocket(spec))
	if ttyErr != nil { // watch ends the machine
		tty, _ = net.Pipe()
		_ = tty.Close()
	}
	m, err = watch(ctx, m, tty, func() error {
		if ttyErr != nil {
			return fmt.Errorf("connect console: %w", ttyErr)
		}
		monitor, err := dialSocket(ctx, monitorSocket(spec))
		if err != nil {
			return fmt.Errorf("connect monitor: %w", err)
		}
		return resume(ctx, m, monitor)
	})
	if err != nil {
		return nil, fmt.Errorf("adopt qemu: %w", err)
	}
	return m, nil
}

// resume brings a machine that was parked to a running guest.
func resume(ctx context.Context, m *machine, conn net.Conn) (err error) {
	if m.monitor, err = qmp.New(ctx, conn); err != nil {
		return fmt.Errorf("connect monitor: %w", err)
	}
	m.mark(func(t *hypervisor.Timeline) { t.Monitor = time.Now() })
	if err := m.monitor.Execute(ctx, "cont", nil, nil); err != nil {
		return errors.Join(fmt.Errorf("run guest: %w", err), m.monitor.Close())
	}
	m.mark(func(t *hypervisor.Timeline) { t.Running = time.Now() })
	return nil
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
