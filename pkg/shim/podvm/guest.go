package podvm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxyv1"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/dnsrelay"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/guestclock"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/livevolume"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/portforward"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sharelimit"
)

// connectNetwork makes a tap for each link of the pod's network.
func (b *boot) connectNetwork(context.Context) error { return b.network.Connect() }

// connectGuest waits until the guest is ready.
func (b *boot) connectGuest(ctx context.Context) error {
	var err error
	if b.refuse == nil {
		err = reachGuest(ctx, b)
	} else {
		err = reachRestored(ctx, b)
	}
	if err != nil {
		return err
	}
	vm := b.vm.keep()
	b.wg.Go(func() {
		<-vm.Done()
		b.loss.report(vmEnded(vm))
	})
	if resolver, ok := b.guest.(dnsrelay.Guest); ok { // not an original one
		b.dns.Start(resolver)
	}
	b.timing.Ready = time.Now()
	return b.listenProxy(ctx)
}

// restoredPart is the part of the time for a boot that a guest which need not boot has to
// answer.
const restoredPart = 4

// reachRestored waits for the answer of a guest that need not boot. When it does not come
// the guest gives way to one that boots.
func reachRestored(ctx context.Context, b *boot) error {
	limit := b.opts.Config.BootTimeout / restoredPart
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cause := reachGuest(bounded, b)
	if cause == nil {
		cause = reseed(bounded, b.guest)
	}
	if cause == nil {
		cause = bringOnline(bounded, b)
	}
	if cause == nil || ctx.Err() != nil || wasKilled(b.running()) {
		return cause
	}
	refuse, late := b.refuse, bounded.Err() != nil
	if !late {
		refuse(cause)
	}
	if err := giveUp(ctx, b); err != nil {
		return err
	}
	began := time.Now()
	err := acquireVM(ctx, b, 0)
	if err == nil && b.refuse != nil {
		return errors.New("the source has another vm that does not boot")
	}
	if err == nil {
		err = reachGuest(ctx, b)
	}
	// Where it is late to boot, too, it is the host that is slow, or the pod's part of it
	// small, and others can go on from there.
	switch took := time.Since(began); {
	case !late:
	case err == nil && took < limit:
		refuse(cause)
	default:
		log.G(ctx).WithError(cause).WithField("sandbox", b.opts.ID).WithField("boot", took.String()).
			Warn("a VM from a template did not answer in time; the template is kept, for one that booted instead was as slow")
	}
	return err
}

// giveUp ends the VM and the connection to its guest.
func giveUp(ctx context.Context, b *boot) error {
	vm := b.running()
	b.vm.set(nil)
	b.Disconnect()
	err := vm.Kill(ctx)
	if b.guest != nil {
		err = errors.Join(err, b.guest.Close())
		b.guest = nil
	}
	return err
}

// wasKilled reports whether somebody has killed the VMM, for which the VM can do nothing.
func wasKilled(vm hypervisor.VM) bool {
	select {
	case <-vm.Done():
		return vm.Exit().Killed()
	case <-time.After(endGrace):
		return false
	}
}

// reseed gives a guest random numbers that no other one has.
func reseed(ctx context.Context, g client.Guest) error {
	guest, ok := g.(interface {
		Reseed(ctx context.Context, entropy []byte) error
	})
	if !ok {
		return fmt.Errorf("a guest of dialect %s takes no random numbers", g.Dialect())
	}
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails
	return guest.Reseed(ctx, entropy)
}

// bringOnline has a guest use what its VM has more than the one that it goes on from.
func bringOnline(ctx context.Context, b *boot) error {
	resizer, ok := b.running().(hypervisor.Resizer)
	if !ok || resizer.Grown() == (hypervisor.Size{}) {
		return nil
	}
	guest, ok := b.guest.(interface {
		Online(ctx context.Context, cpus, memoryMiB int) error
	})
	if !ok {
		return fmt.Errorf("%w: a guest of dialect %s does not say when", hypervisor.ErrNotResized, b.guest.Dialect())
	}
	more := resizer.Grown()
	if err := guest.Online(ctx, more.CPUs, more.MemoryMiB); err != nil {
		return fmt.Errorf("%w: %w", hypervisor.ErrNotResized, err)
	}
	return nil
}

// reachGuest puts the proxy between the shim and the guest, and waits for READY, or for
// an answer of a guest that has said it before.
func reachGuest(ctx context.Context, b *boot) error {
	clients := newClientLog(ctx, b.opts.ID)
	opts := proxy.Options{
		URL: "unix://" + b.ProxySocket(), Dialect: b.opts.Config.Dialect, Restored: b.refuse != nil,
		Tap: b.opts.Tap, GuestLog: newGuestLog(ctx, b.opts.ID).add, Log: clients.add, CutOff: clients.cutOff,
	}
	if b.opts.Config.ProxySocket {
		opts.Version1 = proxyv1.New()
	}
	b.server = proxy.NewServer(opts)
	vm := b.running()
	ctl, err := vm.Dial(ctx, layout.CtlPort)
	if err != nil {
		return err
	}
	tty, err := vm.Dial(ctx, layout.TTYPort)
	if err != nil {
		_ = ctl.Close()
		return err
	}
	events := b.events
	events.DNS = b.dns.Ask
	events.Lost = func(err error) { b.wg.Go(func() { b.reportSilence(vm, err) }) }
	guest, err := client.Dial(ctx, client.Options{
		Server: b.server, VM: b.opts.ID, Ctl: ctl, TTY: tty, Events: events,
		CallTimeout: b.opts.Config.CallTimeout, Gate: b.gate,
		Warn: func(message string) { log.G(ctx).WithField("sandbox", b.opts.ID).Warn(message) },
	})
	if err != nil {
		return err
	}
	b.guest = guest
	return nil
}

// endLimit is how long the end of a VMM may come after that of its connections.
const endLimit = time.Second

// reportSilence reports that the connection to the guest has ended. When that is
// because the VMM has, its end tells more.
func (b *boot) reportSilence(vm hypervisor.VM, err error) {
	var cause error = &partError{fmt.Errorf("guest connection lost: %w", err), partGuest}
	select {
	case <-vm.Done():
		cause = vmEnded(vm)
	case <-time.After(endLimit):
	}
	if b.vm.keeps(vm) { // not refused
		b.loss.report(cause)
	}
}

// listenProxy serves the proxy's protocols, in both versions, to others on the host.
func (b *boot) listenProxy(ctx context.Context) error {
	if !b.opts.Config.ProxySocket {
		return nil
	}
	l, err := net.Listen("unix", b.ProxySocket()) //nolint:noctx // a Unix socket does not wait
	if err != nil {
		return fmt.Errorf("serve proxy frames: %w", err)
	}
	if err := os.Chmod(b.ProxySocket(), 0o600); err != nil {
		_ = l.Close()
		return fmt.Errorf("serve proxy frames: %w", err)
	}
	b.wg.Go(func() { // ends with the server
		if err := b.server.Listen(l); err != nil {
			log.G(ctx).WithError(err).Error("serve proxy frames")
		}
	})
	return nil
}

// plugShare gives the guest the shared directory.
func (b *boot) plugShare(ctx context.Context) error {
	if b.virtiofs() {
		err := pluggerOf(b.Machine).Plug(ctx, hypervisor.FSDevice{ID: "share", Tag: layout.ShareTag, Socket: b.virtiofsSocket()})
		if err != nil {
			return err
		}
	}
	b.timing.Plugged = time.Now()
	return nil
}

// attachNetwork gives the guest its interfaces.
func (b *boot) attachNetwork(ctx context.Context) error {
	err := b.network.Attach(ctx, pluggerOf(b.Machine), b.guest)
	b.timing.Network = time.Now()
	return err
}

// startPod sends the guest what it has to know of its pod.
func (b *boot) startPod(ctx context.Context) error {
	err := b.guest.StartPod(ctx, client.Pod{
		Hostname: b.pod.Hostname, DNS: b.pod.DNS, ShareType: b.opts.Config.ShareType,
		Sysctls: b.pod.Sysctls, ShmSize: b.pod.ShmSize,
	})
	b.timing.Pod = time.Now()
	b.timing.VM = b.running().Timeline()
	return err
}

// keepClock gives the guest the host's time, and keeps it so. What runs in it has
// not seen another time: the first container is still to come.
func (b *boot) keepClock(ctx context.Context) error {
	guest, ok := b.guest.(guestclock.Guest)
	if !ok { // an original one
		return nil
	}
	b.vcpus.clock = guestclock.Start(log.WithLogger(activity.Without(ctx), log.G(ctx).WithField("sandbox", b.opts.ID)), guest)
	b.undo.Add(func(context.Context) error { return b.vcpus.clock.Close() })
	b.setClock(ctx)
	return nil
}

// forwardPorts forwards connections to the pod's loopback. A host that cannot do
// it has pods without that.
func (b *boot) forwardPorts(ctx context.Context) {
	guest, ok := b.guest.(portforward.Guest)
	// Where other processes live in the namespace, its loopback is theirs.
	if !ok || !b.pod.Network.Own {
		return
	}
	loopback, err := b.network.ListenLoopback()
	if err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", b.opts.ID).Warn("ports of the pod cannot be forwarded")
		return
	}
	f := portforward.Start(ctx, loopback, guest)
	b.undo.Add(func(context.Context) error { return f.Close() })
}

// watchShare keeps the guest from using up the descriptors of the share's server.
func watchShare(ctx context.Context, b *boot) {
	guest, ok := b.guest.(sharelimit.Guest)
	if !ok || b.shareServer == nil { // an original one, or the share is QEMU's
		return
	}
	w := sharelimit.Start(log.WithLogger(ctx, log.G(ctx).WithField("sandbox", b.opts.ID)), b.shareServer, guest)
	b.undo.Add(func(context.Context) error { return w.Close() })
}

// watchVolumes keeps the guest's copies of volumes up to date.
func watchVolumes(ctx context.Context, b *boot) {
	guest, ok := b.guest.(livevolume.Guest)
	if !ok { // an original one
		return
	}
	b.live = livevolume.New(log.WithLogger(ctx, log.G(ctx).WithField("sandbox", b.opts.ID)), guest)
	b.undo.Add(func(context.Context) error { return b.live.Close() })
}
