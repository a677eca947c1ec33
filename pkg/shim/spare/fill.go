package spare

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// needMiB is what a VM needs until it has a pod.
const needMiB = 256

// Fill makes VMs from the template of a source until there are n of any template, at least one
// of them of this, and reports the pid of each process that outlives this one: the VMMs, and who ends what nobody
// takes. Those whose template is gone end, those that have waited for too long, and the oldest of what is too many. When another
// process makes some it does nothing. Why it has failed is kept for [Pool.Wanted].
func (p *Pool) Fill(ctx context.Context, source *template.Source, n int, started func(what string, pid int)) error {
	key, err := source.VM.Key()
	if err != nil {
		return fmt.Errorf("make spare vms: %w", err)
	}
	unlock, err := p.lock()
	if errors.Is(err, errdefs.ErrUnavailable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make spare vms: %w", err)
	}
	defer unlock()
	err = p.fill(ctx, source, key, n, started)
	if !errors.Is(ctx.Err(), context.Canceled) {
		p.setFailed(err)
	}
	if err != nil {
		return fmt.Errorf("make spare vms: %w", err)
	}
	return nil
}

func (p *Pool) fill(ctx context.Context, source *template.Source, key template.Key, n int, started func(what string, pid int)) (err error) {
	if err := p.clean(ctx, func(vm *VM) bool {
		_, err := source.Store.Open(vm.Key)
		return errors.Is(err, errdefs.ErrNotFound) || p.idle(vm)
	}); err != nil {
		return err
	}
	ready, err := p.List()
	if err != nil {
		return err
	}
	missing := max(n-len(ready), 0)
	if count(ready, key) == 0 {
		missing = max(missing, 1)
	}
	for _, vm := range surplus(ready, key, len(ready)+missing-n) {
		if err := vm.end(ctx); err != nil {
			return err
		}
	}
	_ = os.Remove(filepath.Join(p.Dir, missedFile))
	if err := p.Group.Enter(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, waiters{p}.endUseless(context.WithoutCancel(ctx)), p.Group.Leave()) }()
	// Before there is a VM, so that none is without.
	if err := (waiters{p}).start(ctx, started); err != nil {
		return err
	}
	for range missing {
		if err := template.HasRoom(needMiB); err != nil {
			return err
		}
		pid, err := p.makeOne(ctx, source, key)
		if err != nil {
			return err
		}
		started("a spare VM", pid)
	}
	return nil
}

// surplus are n of some VMs, the oldest first: those of keys that have several before those of others,
// and before those of this key.
func surplus(all []*VM, key template.Key, n int) (out []*VM) {
	left := slices.Clone(all)
	for range min(n, len(all)) {
		i := slices.IndexFunc(left, func(vm *VM) bool { return vm.Key != key && count(left, vm.Key) > 1 })
		if i < 0 {
			i = max(0, slices.IndexFunc(left, func(vm *VM) bool { return vm.Key != key }))
		}
		out = append(out, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return out
}

// makeOne makes a VM.
func (p *Pool) makeOne(ctx context.Context, source *template.Source, key template.Key) (pid int, err error) {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	number := strconv.FormatUint(uint64(binary.BigEndian.Uint32(random[:])), 10)
	part := p.part(number)
	if err := os.Mkdir(part, 0o700); err != nil {
		return 0, err
	}
	ns, err := network.New() // an empty one: nothing of the host's network is in its reach
	if err != nil {
		return 0, errors.Join(err, os.Remove(part))
	}
	defer ns.Close()
	vm, err := source.Restore(ctx, hypervisor.Spec{ID: "spare", Dir: part, Ports: template.Ports(), NetNS: ns.File(), Parked: true})
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(part))
	}
	if err := park(ctx, vm, ns, source, part); err != nil {
		return 0, errors.Join(err, vm.Kill(context.WithoutCancel(ctx)), os.RemoveAll(part))
	}
	return vm.PID(), os.Rename(part, filepath.Join(p.Dir, string(key)+"."+number))
}

// park records a VM, prepares its guest, and lets go of it.
func park(ctx context.Context, vm hypervisor.VM, ns *network.Namespace, source *template.Source, dir string) error {
	parker, ok := vm.(hypervisor.Parker)
	if !ok {
		return errors.New("this kind of vm cannot be left to another process")
	}
	process, err := hostproc.Of("qemu", vm.PID())
	if err != nil {
		return err
	}
	if err := jsonfile.Write(filepath.Join(dir, store.SpareRecord), process); err != nil {
		return err
	}
	// It is the first to go when the host has no memory left, whoever has made it.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", vm.PID()), []byte("1000"), 0); err != nil {
		return err
	}
	if err := prepare(ctx, vm, ns, source); err != nil {
		return template.Describe(vm, fmt.Errorf("prepare guest: %w", err))
	}
	return parker.Park(ctx)
}
