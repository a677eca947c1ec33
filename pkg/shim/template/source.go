package template

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Source has VMs that go on from a template, where there is one. It is a source of
// pkg/shim/podvm.
type Source struct {
	Store *Store
	VM    VM
}

// beside is what QEMU and the shim need beside the copy of a template.
const beside = 64 << 20

// Acquire starts a VM. refuse is nil for one that boots; for one that goes on from a
// template it is to be called when the guest does not answer: the next one boots.
//
// The copy is made by this process. Where limit, in bytes, has no room for it the VM boots,
// so that it is the VMM that the kernel ends, and not who would report it.
func (s *Source) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (vm hypervisor.VM, refuse func(error), err error) {
	t, err := s.find()
	if err == nil && t.Index.Bytes()+beside > int64(limit) {
		err = fmt.Errorf("its copy needs %d MiB, and the pod's limit leaves %d", (t.Index.Bytes()+beside)>>20, limit>>20)
	}
	if err != nil {
		level := log.InfoLevel
		if errors.Is(err, errRefused) || errors.Is(err, errdefs.ErrFailedPrecondition) { // damaged, or not to be trusted
			level = log.WarnLevel
		}
		log.G(ctx).WithError(err).Log(level, "no template for this VM: it boots")
		vm, err = s.VM.Driver.Start(ctx, spec)
		return vm, nil, err
	}
	vm, cause := s.restore(ctx, t, spec)
	if cause == nil {
		return vm, func(cause error) { s.refuse(ctx, t, cause) }, nil
	}
	if ctx.Err() != nil || errors.Is(cause, hypervisor.ErrKilled) {
		return nil, nil, cause // no fault of the template's
	}
	vm, err = s.VM.Driver.Start(ctx, spec)
	if err != nil || errors.Is(cause, errNotCopied) { // nor is what no VM can do here
		log.G(ctx).WithError(cause).Warn("a VM could not go on from its template, which is kept: it boots")
	} else {
		s.refuse(ctx, t, cause)
	}
	return vm, nil, err
}

func (s *Source) refuse(ctx context.Context, t *Template, cause error) {
	if s.NotResized(ctx, t.Key, cause) { // it is good for those of its size
		return
	}
	log.G(ctx).WithError(s.Store.refuseThis(t, cause)).Warn("a template cannot be used and was removed: VMs boot until there is a new one")
}

// NotResized reports whether a cause is that a VM from a template did not become as large as it is to be. Those
// that are larger than the template boot for a while then: see [Source.Boots].
func (s *Source) NotResized(ctx context.Context, key Key, cause error) bool {
	if !errors.Is(cause, hypervisor.ErrNotResized) {
		return false
	}
	s.Store.setFailed(key, cause)
	log.G(ctx).WithError(cause).Warn("a VM from a template did not become as large as it is to be: larger ones boot for an hour")
	return true
}

// Boots reports whether the VM is larger than its template, and one that was as well did not become so not long ago.
func (s *Source) Boots(key Key) bool { return s.resizes() && s.Store.Failed(key) != "" }

// find returns the VM's template, or why it has none.
func (s *Source) find() (*Template, error) {
	if err := s.VM.Fits(); err != nil {
		return nil, err
	}
	key, err := s.VM.Key()
	if err != nil {
		return nil, err // the start says it as well
	}
	if failed := s.Store.Failed(key); s.resizes() && failed != "" {
		return nil, errors.New(failed)
	}
	return s.Store.Open(key)
}

// resizes reports whether the VM is larger than its template.
func (s *Source) resizes() bool { return s.VM.template().Size != s.VM.Spec.Size }

// Part is a context with the part of the time for a start that a VM may take which goes on from
// somewhere: the rest is for another one.
func Part(ctx context.Context) (context.Context, context.CancelFunc) {
	const part = 4
	end, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(end)/part)
}

func (s *Source) restore(ctx context.Context, t *Template, spec hypervisor.Spec) (hypervisor.VM, error) {
	ctx, cancel := Part(ctx)
	defer cancel()
	to := spec.Size
	vm, err := s.start(ctx, t, s.Spec(spec))
	if err != nil {
		return nil, err
	}
	if err := s.Grow(ctx, vm, to); err != nil {
		return nil, err
	}
	return vm, nil
}

// Spec is a spec with the size of the template's VM.
func (s *Source) Spec(spec hypervisor.Spec) hypervisor.Spec {
	from := s.VM.template()
	spec.Size, spec.Max = from.Size, from.Max
	return spec
}

// start starts a VM of the template's size that goes on from it.
func (s *Source) start(ctx context.Context, t *Template, spec hypervisor.Spec) (hypervisor.VM, error) {
	snapshot, release, err := t.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer release() // the VMM has it
	spec.Snapshot = snapshot
	return s.VM.Driver.Start(ctx, spec)
}

// Restore starts a VM that goes on from the template, with its size. to has what is not the
// template's: ID, Dir, NetNS, Ports and Parked. Without a template it is
// errdefs.ErrNotFound.
func (s *Source) Restore(ctx context.Context, to hypervisor.Spec) (hypervisor.VM, error) {
	key, err := s.VM.Key()
	if err != nil {
		return nil, err
	}
	t, err := s.Store.Open(key)
	if err != nil {
		return nil, err
	}
	spec := s.Spec(s.VM.Spec)
	spec.ID, spec.Dir, spec.NetNS, spec.Ports, spec.Parked = to.ID, to.Dir, to.NetNS, to.Ports, to.Parked
	return s.start(ctx, t, spec)
}

// Grow makes a VM of the template's size as large as a pod's is to be. After an error it has ended.
func (s *Source) Grow(ctx context.Context, vm hypervisor.VM, to hypervisor.Size) (err error) {
	if !s.resizes() {
		return nil
	}
	resizer, ok := vm.(hypervisor.Resizer)
	if !ok {
		err = errdefs.ErrNotImplemented
	} else {
		err = resizer.Resize(ctx, to)
	}
	if err == nil {
		return nil
	}
	kind := hypervisor.ErrNotResized
	if ctx.Err() != nil { // the host is slow: others may become larger
		kind = errNotCopied
	}
	return errors.Join(fmt.Errorf("%w: %w", kind, err), vm.Kill(context.WithoutCancel(ctx)))
}
