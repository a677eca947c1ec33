package fake

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// VM is one VM. All methods are safe for concurrent use.
type VM struct {
	Spec hypervisor.Spec // what it was started with

	errs     map[Step]error
	cmd      *exec.Cmd
	stdin    io.Closer
	guest    map[string]net.Conn // the guest's ends of the ports
	timeline hypervisor.Timeline
	done     chan struct{}
	exit     hypervisor.Exit // valid after done

	mu      sync.Mutex          // guards the fields below
	host    map[string]net.Conn // of ports that were not dialled
	devices []hypervisor.Device
	paused  bool
	size    hypervisor.Size // that it was resized to
}

var (
	_ hypervisor.VM      = (*VM)(nil)
	_ hypervisor.Plugger = (*VM)(nil)
	_ hypervisor.Resizer = (*VM)(nil)
)

// wait reaps the process, whose end is that of the VM.
func (vm *VM) wait() {
	_ = vm.cmd.Wait() // killed, as a rule
	if ws, ok := vm.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		vm.exit.Signal = int(ws.Signal())
	}
	_ = vm.stdin.Close()
	vm.closePorts()
	close(vm.done)
}

// closePorts closes the guest's ends, and the host's of ports that nobody has
// dialled.
func (vm *VM) closePorts() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	for _, conn := range vm.guest {
		_ = conn.Close()
	}
	for _, conn := range vm.host {
		_ = conn.Close()
	}
	vm.host = nil
}

// Die ends the VM as if by itself, without waiting.
func (vm *VM) Die() { _ = vm.cmd.Process.Kill() }

// Resize implements [hypervisor.Resizer].
func (vm *VM) Resize(_ context.Context, to hypervisor.Size) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if err := vm.errs[Resize]; err != nil {
		return err
	}
	vm.size = to
	return nil
}

// Grown implements [hypervisor.Resizer].
func (vm *VM) Grown() hypervisor.Size {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.size == (hypervisor.Size{}) {
		return vm.size
	}
	return hypervisor.Size{CPUs: vm.size.CPUs - vm.Spec.CPUs, MemoryMiB: vm.size.MemoryMiB - vm.Spec.MemoryMiB}
}

// Devices are those that are plugged in.
func (vm *VM) Devices() []hypervisor.Device {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return slices.Clone(vm.devices)
}

// Paused reports whether the VM is paused.
func (vm *VM) Paused() bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.paused
}

// PID implements [hypervisor.VM].
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Done implements [hypervisor.VM].
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Exit implements [hypervisor.VM].
func (vm *VM) Exit() hypervisor.Exit {
	select {
	case <-vm.done:
		return vm.exit
	default:
		return hypervisor.Exit{}
	}
}

// ConsoleTail implements [hypervisor.VM].
func (vm *VM) ConsoleTail(int) []string { return []string{"a line of the console"} }

// Timeline implements [hypervisor.VM].
func (vm *VM) Timeline() hypervisor.Timeline { return vm.timeline }

// Dial implements [hypervisor.VM]. A port can be dialled once.
func (vm *VM) Dial(_ context.Context, port string) (net.Conn, error) {
	if err := vm.check(Dial); err != nil {
		return nil, err
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	conn := vm.host[port]
	if conn == nil {
		return nil, fmt.Errorf("dial port %s: not there, or dialled before: %w", port, errdefs.ErrNotFound)
	}
	delete(vm.host, port)
	return conn, nil
}

// check returns why a step cannot be done.
func (vm *VM) check(step Step) error {
	select {
	case <-vm.done:
		return fmt.Errorf("%s: the vm has ended: %w", step, errdefs.ErrUnavailable)
	default:
	}
	if err := vm.errs[step]; err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// Plug implements [hypervisor.Plugger].
func (vm *VM) Plug(_ context.Context, dev hypervisor.Device) error {
	if err := vm.check(Plug); err != nil {
		return err
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.indexLocked(dev.DeviceID()) >= 0 {
		return fmt.Errorf("plug %s: %w", dev.DeviceID(), errdefs.ErrAlreadyExists)
	}
	vm.devices = append(vm.devices, dev)
	return nil
}

// Unplug implements [hypervisor.Plugger].
func (vm *VM) Unplug(_ context.Context, id string) error {
	if err := vm.check(Unplug); err != nil {
		return err
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	i := vm.indexLocked(id)
	if i < 0 {
		return fmt.Errorf("unplug %s: %w", id, errdefs.ErrNotFound)
	}
	vm.devices = slices.Delete(vm.devices, i, i+1)
	return nil
}

func (vm *VM) indexLocked(id string) int {
	return slices.IndexFunc(vm.devices, func(d hypervisor.Device) bool { return d.DeviceID() == id })
}

// Pause implements [hypervisor.VM].
func (vm *VM) Pause(context.Context) error { return vm.setPaused(Pause, true) }

// Resume implements [hypervisor.VM].
func (vm *VM) Resume(context.Context) error { return vm.setPaused(Resume, false) }

func (vm *VM) setPaused(step Step, paused bool) error {
	if err := vm.check(step); err != nil {
		return err
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.paused = paused
	return nil
}

// Kill implements [hypervisor.VM].
func (vm *VM) Kill(ctx context.Context) error {
	vm.Die()
	select {
	case <-vm.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
