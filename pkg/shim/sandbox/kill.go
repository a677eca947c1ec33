package sandbox

import (
	"context"
	"time"

	"github.com/containerd/log"
)

// mustEnd gives a container that is killed half as long again as a command
// to end, whatever the guest answers, and ends the VM otherwise. Clients of containerd wait for
// the exit, and try nothing else: without this a guest could keep its pod.
func (p *Process) mustEnd(ctx context.Context) {
	p.mu.Lock()
	again := p.doomed
	p.doomed = true
	p.mu.Unlock()
	if again {
		return
	}
	ctx = context.WithoutCancel(ctx)
	s := p.container.sandbox
	go func() { // ends with the VM at the latest
		select {
		case <-p.ending:
		case <-p.done:
		case <-s.ended:
		case <-time.After(s.opts.VM.CallTimeout * 3 / 2):
			log.G(ctx).WithField("container", p.container.ID).Error("SIGKILL has not ended the container: ending the vm")
			s.killVM(ctx)
		}
	}()
}
