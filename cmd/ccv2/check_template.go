package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// templates are those that pods of the usual size go on from; nil when there can be none, of
// which the finding says why.
func (c *checker) templates() (*template.Source, finding) {
	if !c.config.Template.Enabled {
		return nil, ok("off ([template] enabled = false): each pod boots")
	}
	driver, isDriver := c.driver.(template.Driver)
	vm, err := vmconfig.Of(c.config, c.accel)
	if err != nil || !isDriver {
		return nil, warn(fmt.Sprintf("cannot be looked at: %v", err), "see above")
	}
	s := &template.Source{Store: vmconfig.TemplateStore(c.config), VM: vmconfig.TemplateVM(c.config, vm, driver, version)}
	if err := s.VM.Fits(); err != nil {
		return nil, ok("none, each pod boots: %v", err)
	}
	return s, checkTemplates(s, c.path, vmconfig.SpareText(c.config, c.accel))
}

// checkTemplates says whether there is a template for pods of the usual size, and what to do
// where there is none.
func checkTemplates(s *template.Source, config, spares string) finding {
	key, err := s.VM.Key()
	if err != nil {
		return warn(fmt.Sprintf("cannot be looked at, each pod boots: %v", err), "see above")
	}
	build := "run ccv2 template build -config " + config
	all, err := s.Store.List()
	if err != nil {
		return warn(fmt.Sprintf("cannot be read, each pod boots: %v", err), "set [template] dir to a directory of root's")
	}
	t, err := s.Store.Open(key)
	failed := s.Store.Failed(key)
	switch {
	case err == nil && failed != "":
		return warn("larger pods boot, as one did not become larger: "+failed, build+" once the cause is away; it is tried again within an hour")
	case err == nil:
		return ok("%s of %d in %s, made %s, used %s: pods go on from it%s", key, len(all), s.Store.Dir,
			t.Index.Made.Local().Format(time.DateTime), t.Used.Local().Format(time.DateTime), spares)
	case failed != "":
		return warn("the one for pods of the usual size could not be made, they boot: "+failed, build+" once the cause is away")
	case !errors.Is(err, errdefs.ErrNotFound):
		return warn(fmt.Sprintf("none can be used, each pod boots: %v", err), "mend what is named, and "+build)
	default:
		return warn("none for pods of the usual size in "+s.Store.Dir+": the next one boots", build+", or let the next pod have it made")
	}
}

// noted is a source of VMs that notes whether the last one need not boot.
type noted struct {
	podvm.Source
	restored bool
}

// Acquire implements [podvm.Source].
func (n *noted) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (hypervisor.VM, func(error), error) {
	vm, refuse, err := n.Source.Acquire(ctx, spec, limit)
	n.restored = refuse != nil
	return vm, refuse, err
}

// bootFromTemplate does what boot does with a VM from a template, where there is one.
func (c *checker) bootFromTemplate(ctx context.Context) error {
	s, f := c.templates()
	if s == nil || f.verdict != verdictOK {
		return nil // said above
	}
	source := &noted{Source: s}
	p, err := c.probe(ctx, source)
	if err != nil {
		return err
	}
	if !source.restored {
		c.report("from template", warn("the VM did not go on from its template, and booted", "see ccv2 template list"))
		return nil
	}
	all := p.use.qemu.plus(p.use.virtiofsd).plus(p.use.shim)
	c.report("from template", ok("ready for containers after %s, %.1f MiB (PSS); one that boots needs what is below",
		p.timing.Pod.Sub(p.timing.Begin).Round(time.Millisecond), mib(all.total)))
	return nil
}
