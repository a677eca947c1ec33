package podvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/dnsrelay"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podnet"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/reclaim"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// createStateDir makes the sandbox's directory. One that a dead shim left is
// cleaned up.
func (b *boot) createStateDir(ctx context.Context) error {
	self, err := hostproc.Of("shim", os.Getpid())
	if err != nil {
		return err
	}
	spec := b.opts.Config.Spec
	record := store.State{
		Namespace: b.opts.Namespace, ID: b.opts.ID, Created: time.Now(), Shim: self,
		About: store.About{
			PodNamespace: b.pod.Name.Namespace, Pod: b.pod.Name.Name, PodUID: b.pod.Name.UID,
			CPUs: spec.CPUs, MemoryMiB: spec.MemoryMiB, Accelerator: string(spec.Accelerator),
		},
	}
	err = b.dir.Create(record)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		old, loadErr := b.dir.Load()
		if loadErr == nil && old.Shim.Alive() {
			return fmt.Errorf("the shim with pid %d runs a sandbox of this id already: %w", old.Shim.PID, err)
		}
		if err := reclaim.Sandbox(ctx, b.dir); err != nil {
			return fmt.Errorf("clean up after a dead shim: %w", err)
		}
		err = b.dir.Create(record)
	}
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		// From here on this finds everything that this sandbox acquires.
		b.undo.Add(func(ctx context.Context) error { return reclaim.Sandbox(ctx, b.dir) })
	}
	if err == nil {
		serveDebug(ctx, b)
	}
	return err
}

// serveDebug lets others look at the sandbox. A sandbox that nobody can look at is one
// nevertheless.
func serveDebug(ctx context.Context, b *boot) {
	if b.opts.Serve == nil {
		return
	}
	stop, err := b.opts.Serve(b.dir.Path())
	if err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", b.opts.ID).Warn("serve the debug service: ccv2 info and the like will not reach this shim")
		return
	}
	b.undo.Add(func(context.Context) error { return stop() })
}

// update changes the record of the sandbox.
func (b *boot) update(change func(*store.State)) error {
	record, err := b.dir.Load()
	if err != nil {
		return err
	}
	change(&record)
	return b.dir.Save(record)
}

// recordProcess records a process that must not outlive the sandbox. Until then
// its parent-death signal ends it when the shim dies.
func (b *boot) recordProcess(name string, pid int) error {
	p, err := hostproc.Of(name, pid)
	if err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	if err := preferAsVictim(pid); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return b.update(func(s *store.State) { s.Processes = append(s.Processes, p) })
}

// openNetwork opens and records the pod's network namespace. Its links are
// released by the removal of the record, after the VMM has ended.
func (b *boot) openNetwork(ctx context.Context) error {
	where := b.pod.Network
	if where.NotHost {
		log.G(ctx).WithField("container", b.opts.ID).Warn("the container asks for the host's network, where a VM cannot be: it has a loopback of its own alone")
	}
	n, err := podnet.Open(where, b.opts.Config.CallTimeout)
	if err != nil {
		return err
	}
	if b.opts.Config.VhostNet {
		n.UseVhost()
	}
	b.network = n
	b.undo.Add(func(context.Context) error { return n.Close() })
	b.dns = dnsrelay.New(ctx, n.File(), b.pod.ResolvConf)
	b.undo.Add(func(context.Context) error { return b.dns.Close() })
	if where.Path == "" {
		return nil // ends with the sandbox
	}
	cookie, err := n.Cookie()
	if err != nil {
		return err
	}
	return b.update(func(s *store.State) { s.NetNS, s.NetNSCookie = where.Path, cookie })
}

// prepareShare makes the directories of the share.
func (b *boot) prepareShare(context.Context) error { return b.shares.Prepare() }

func (b *boot) virtiofs() bool { return b.opts.Config.ShareType == "virtiofs" }

func (b *boot) virtiofsSocket() string { return filepath.Join(b.dir.VM(), "virtiofs.sock") }

// startShareServer starts the daemon that serves the share, unless QEMU does. It
// is awaited no further: the device is plugged long after.
func (b *boot) startShareServer(ctx context.Context) error {
	if !b.virtiofs() {
		return nil
	}
	d, err := virtiofsd.Start(ctx, virtiofsd.Options{
		Binary: b.opts.Config.VirtioFSD, SharedDir: b.dir.Shared(), Socket: b.virtiofsSocket(), OwnMounts: share.RootfsName,
	})
	if err != nil {
		return err
	}
	b.undo.Add(d.Kill)
	b.wg.Go(func() {
		<-d.Done()
		b.loss.report(&partError{fmt.Errorf("virtiofsd ended by itself: it %s", d.Exit()), partShare})
	})
	b.shareServer = d
	return b.recordProcess("virtiofsd", d.PID())
}

// enterShare makes mounts where the server of the share has its own. The server
// has entered the share when the guest has mounted it.
func (b *boot) enterShare(context.Context) error {
	if !b.virtiofs() {
		return nil
	}
	b.undo.Add(func(context.Context) error { return b.shares.Close() })
	return b.shares.Enter(b.shareServer.PID())
}

// startVM starts the VMM in the pod's network namespace: nothing of the host's
// network is in its reach, and a look at the network of its pid shows the pod's.
func (b *boot) startVM(ctx context.Context) error {
	limit := math.MaxInt
	if b.cgroup.Group != nil {
		var err error
		if limit, err = b.cgroup.MemoryLimit(); err != nil {
			return err
		}
	}
	return acquireVM(ctx, b, limit)
}

// adopted reports whether another process has started a VM.
func adopted(vm hypervisor.VM) bool {
	a, ok := vm.(hypervisor.Adopted)
	return ok && a.Adopted()
}

// acquireVM is startVM with a limit of the memory, for the source.
func acquireVM(ctx context.Context, b *boot, limit int) error {
	spec := b.opts.Config.Spec
	spec.ID = b.opts.ID
	spec.Dir = b.dir.VM()
	spec.NetNS = b.network.File()
	spec.Ports = []string{layout.CtlPort, layout.TTYPort}
	if !b.virtiofs() { // cannot be plugged
		spec.Shares9P = []hypervisor.Share9P{{Tag: layout.ShareTag, Dir: b.dir.Shared()}}
	}
	vm, refuse, err := b.opts.Source.Acquire(ctx, spec, limit)
	if err != nil {
		return err
	}
	b.refuse = refuse
	b.vm.set(vm)
	b.undo.Add(vm.Kill)
	if err := b.recordProcess("qemu", vm.PID()); err != nil {
		return err
	}
	return b.update(func(s *store.State) { s.About.Source = originOf(b) })
}
