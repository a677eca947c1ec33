package fake

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/socketpair"
)

// Step is a step in the life of a VM that can be made to fail.
type Step string

// The steps.
const (
	Start  Step = "start"
	Dial   Step = "dial"
	Plug   Step = "plug"
	Unplug Step = "unplug"
	Pause  Step = "pause"
	Resume Step = "resume"
	Resize Step = "resize"
)

// Guest is what runs in a VM. It gets the guest's ends of the ports by name, and
// is to return when they are closed.
type Guest func(vm *VM, ports map[string]net.Conn)

// Driver makes VMs. The zero value makes VMs without a guest in which nothing
// fails. Its fields are set before it is used.
type Driver struct {
	Guest Guest // nil for one that says nothing
	// Errs has the errors of the steps that fail.
	Errs map[Step]error
	// Starting, when set, is called by Start; its error is that of Start.
	Starting func(context.Context) error
	// Capabilities are the result of Probe.
	Capabilities hypervisor.Capabilities

	wg  sync.WaitGroup
	mu  sync.Mutex // guards vms
	vms []*VM
}

var _ hypervisor.Driver = (*Driver)(nil)

// Probe implements [hypervisor.Driver].
func (d *Driver) Probe(context.Context, string) (hypervisor.Capabilities, error) {
	return d.Capabilities, nil
}

// Start implements [hypervisor.Driver].
func (d *Driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	vm, err := d.start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start vm: %w", err)
	}
	return vm, nil
}

func (d *Driver) start(ctx context.Context, spec hypervisor.Spec) (*VM, error) {
	if d.Starting != nil {
		if err := d.Starting(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.Errs[Start]; err != nil {
		return nil, err
	}
	vm := &VM{
		Spec: spec, errs: d.Errs, done: make(chan struct{}),
		host: make(map[string]net.Conn), guest: make(map[string]net.Conn), timeline: hypervisor.Timeline{Exec: time.Now()},
	}
	if err := vm.run(); err != nil {
		vm.closePorts()
		return nil, err
	}
	d.wg.Go(vm.wait)
	vm.timeline.Monitor, vm.timeline.Running = time.Now(), time.Now()
	if d.Guest != nil {
		d.wg.Go(func() { d.Guest(vm, vm.guest) })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vms = append(d.vms, vm)
	return vm, nil
}

// run makes the ports and starts the process.
func (vm *VM) run() error {
	for _, port := range vm.Spec.Ports {
		ours, theirs, err := socketpair.New()
		if err != nil {
			return err
		}
		vm.host[port], vm.guest[port] = ours, theirs
	}
	vm.cmd = exec.Command("cat") //nolint:noctx // it lives until it is killed
	var err error
	if vm.stdin, err = vm.cmd.StdinPipe(); err != nil { // it ends with this process
		return err
	}
	return vm.cmd.Start()
}

// Last is the VM that was started last; nil when there is none.
func (d *Driver) Last() *VM {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.vms) == 0 {
		return nil
	}
	return d.vms[len(d.vms)-1]
}

// Close ends all VMs and waits for their guests.
func (d *Driver) Close() {
	d.mu.Lock()
	vms := d.vms
	d.vms = nil
	d.mu.Unlock()
	for _, vm := range vms {
		vm.Die()
	}
	d.wg.Wait()
}
