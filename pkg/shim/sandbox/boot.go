package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/virtiofsd"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Names of the two ports and the share, which original guests insist on.
const (
	ctlPort  = "sh.hyper.channel.0"
	ttyPort  = "sh.hyper.channel.1"
	shareTag = "hyperShared"
)

// consoleLines is how many of the guest's last lines an error shows.
const consoleLines = 20

// runBoot boots and settles the state. It runs once.
func (s *Sandbox) runBoot(ctx context.Context, pod bundle.Pod) {
	defer close(s.booted)
	ends, err := s.boot(ctx, pod)
	s.mu.Lock()
	s.bootErr = err
	aborted := s.state == Stopping // then Stop cleans up
	switch {
	case aborted:
	case err == nil:
		s.toLocked(Ready)
	default:
		s.toLocked(Stopping) // a Stop from here on waits, and does not clean up as well
	}
	s.mu.Unlock()
	background := context.WithoutCancel(ctx)
	switch {
	case aborted:
	case err == nil:
		go s.supervise(background, ends...)
		s.logTiming(ctx)
	default:
		s.killVM(background)
		s.finish(background, err)
	}
}

// boot takes what a sandbox needs, in order, and notes how to give it back
// before each step. It returns where the ends of what the VM depends on show.
func (s *Sandbox) boot(ctx context.Context, pod bundle.Pod) (ends []<-chan error, err error) {
	s.timing.Begin = time.Now()
	if err := s.takeDir(ctx); err != nil {
		return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
	}
	if err := s.takeCgroup(pod); err != nil {
		return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
	}
	if err := s.openNetwork(pod.Network); err != nil {
		return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
	}
	if err := s.shares.Prepare(); err != nil {
		return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
	}
	var shareServer int // pid
	if s.opts.VM.ShareType == "virtiofs" {
		d, end, err := s.startVirtioFSD(ctx)
		if err != nil {
			return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
		}
		shareServer, ends = d.PID(), append(ends, end)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.VM.BootTimeout)
	defer cancel()
	if err := s.startVM(ctx); err != nil {
		return nil, fmt.Errorf("boot sandbox %s: %w", s.opts.ID, err)
	}
	if err := s.network.Connect(); err != nil {
		return nil, s.bootError("connect network", err, ends)
	}
	lost, err := s.connectGuest(ctx)
	if err != nil {
		return nil, s.bootError("guest not ready", err, ends)
	}
	ends = append(ends, lost)
	if err := s.enterCgroup(); err != nil {
		return nil, s.bootError("enter cgroup", err, ends)
	}
	if err := s.plugShare(ctx); err != nil {
		return nil, s.bootError("plug share", err, ends)
	}
	s.guestNetwork = &guestNetwork{s: s}
	if err := s.network.Attach(ctx, s.vm, s.guestNetwork); err != nil { // STARTPOD's kernel parameters can be about them
		return nil, s.bootError("set up network", err, ends)
	}
	s.timing.Network = time.Now()
	if err := s.startPod(ctx, pod); err != nil {
		return nil, s.bootError("start pod", err, ends)
	}
	if shareServer != 0 {
		s.undo.add(func(context.Context) error { return s.shares.Close() })
		if err := s.shares.Enter(shareServer); err != nil {
			return nil, s.bootError("open share", err, ends)
		}
	}
	if s.dialect == hyperstart.DialectCCv2 {
		s.network.Follow(ctx)
	}
	s.forwardPorts(ctx, pod.Network)
	return ends, nil
}

// endGrace is how much later than the connection to the guest the end of the
// VMM may be noticed.
const endGrace = 200 * time.Millisecond

// bootError tells an operator how far the boot came, and what the guest said.
// The end of something that the VM depends on says more than err, which is what
// came of it.
func (s *Sandbox) bootError(phase string, err error, ends []<-chan error) error {
	took := time.Since(s.timing.Begin).Round(time.Millisecond)
	text := fmt.Sprintf("boot sandbox %s: %s after %s", s.opts.ID, phase, took)
	select {
	case <-s.vm.Done():
		err = s.vmEnded()
	case <-time.After(endGrace):
		for _, end := range ends {
			select {
			case err = <-end:
			default:
			}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w (raise [guest] boot_timeout if the host is only slow)", err)
	}
	if lines := s.vm.ConsoleTail(consoleLines); len(lines) > 0 {
		return fmt.Errorf("%s: %w; last console lines:\n  %s", text, err, strings.Join(lines, "\n  "))
	}
	return fmt.Errorf("%s: %w; the guest's console is empty", text, err)
}

// takeDir makes the sandbox's directory. One that a dead shim left is cleaned up.
func (s *Sandbox) takeDir(ctx context.Context) error {
	self, err := hostproc.Of("shim", os.Getpid())
	if err != nil {
		return err
	}
	state := store.State{Namespace: s.opts.Namespace, ID: s.opts.ID, Created: time.Now(), Shim: self}
	err = s.dir.Create(state)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		old, loadErr := s.dir.Load()
		if loadErr == nil && old.Shim.Alive() {
			return fmt.Errorf("the shim with pid %d runs a sandbox of this id already: %w", old.Shim.PID, err)
		}
		if err := s.dir.Remove(ctx); err != nil {
			return fmt.Errorf("clean up after a dead shim: %w", err)
		}
		err = s.dir.Create(state)
	}
	// From here on Remove finds everything that this sandbox takes.
	s.undo.add(s.dir.Remove)
	return err
}

// record notes a process that must not outlive the sandbox.
func (s *Sandbox) record(name string, pid int) error {
	p, err := hostproc.Of(name, pid)
	if err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	state, err := s.dir.Load()
	if err != nil {
		return err
	}
	state.Processes = append(state.Processes, p)
	return s.dir.Save(state)
}

// startVirtioFSD starts the daemon that serves the share. It is awaited no
// further: the device is plugged long after.
func (s *Sandbox) startVirtioFSD(ctx context.Context) (*virtiofsd.Server, <-chan error, error) {
	d, err := virtiofsd.Start(ctx, virtiofsd.Options{
		Binary: s.opts.VM.VirtioFSD, SharedDir: s.dir.Shared(), Socket: s.virtiofsSocket(),
	})
	if err != nil {
		return nil, nil, err
	}
	s.undo.add(d.Kill)
	ended := make(chan error, 1)
	go func() {
		<-d.Done()
		ended <- fmt.Errorf("virtiofsd ended by itself: it %s", d.Exit())
	}()
	return d, ended, s.record("virtiofsd", d.PID())
}

func (s *Sandbox) virtiofsSocket() string { return filepath.Join(s.dir.VM(), "virtiofs.sock") }
func (s *Sandbox) ctlSocket() string      { return filepath.Join(s.dir.VM(), "ctl.sock") }
func (s *Sandbox) ttySocket() string      { return filepath.Join(s.dir.VM(), "tty.sock") }

// ProxySocket is where the sandbox serves proxy frames, when it does.
func (s *Sandbox) ProxySocket() string { return filepath.Join(s.dir.VM(), "proxy.sock") }

func (s *Sandbox) startVM(ctx context.Context) error {
	spec := s.opts.VM.Spec
	spec.ID = s.opts.ID
	spec.Dir = s.dir.VM()
	// Nothing of the host's network is in the VMM's reach, and those who look
	// for the network of the sandbox under its pid find it.
	spec.NetNS = s.network.File()
	spec.Setup = s.setUpVMM
	spec.Ports = []hypervisor.Port{
		{Name: ctlPort, Socket: s.ctlSocket()},
		{Name: ttyPort, Socket: s.ttySocket()},
	}
	if s.opts.VM.ShareType == "9p" { // cannot be plugged
		spec.Shares9P = []hypervisor.Share9P{{Tag: shareTag, Dir: s.dir.Shared()}}
	}
	vm, err := s.opts.Driver.Start(ctx, spec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.vm = vm
	s.mu.Unlock()
	return s.record("qemu", vm.PID())
}

// connectGuest puts the proxy between the shim and the guest, and waits for READY.
func (s *Sandbox) connectGuest(ctx context.Context) (<-chan error, error) {
	lost := make(chan error, 1)
	s.server = proxy.NewServer(proxy.Options{
		URL:     "unix://" + s.ProxySocket(),
		Dialect: s.opts.VM.Dialect,
		Event:   s.guestEvent,
		Lost:    func(_ string, err error) { lost <- fmt.Errorf("guest connection lost: %w", err) },
	})
	s.client = proxy.NewClient(s.opts.ID, s.dialProxy)
	stop := context.AfterFunc(ctx, func() { _ = s.server.Close() }) // ends the wait for READY
	defer stop()
	var err error
	registered := make(chan struct{})
	go func() {
		defer close(registered)
		err = s.client.Register(ctx, s.ctlSocket(), s.ttySocket())
	}()
	select {
	case <-registered:
	case <-s.vm.Done():
		_ = s.server.Close()
		<-registered
		return nil, s.vmEnded()
	}
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	s.timing.Ready = time.Now()
	if s.dialect, err = s.server.Dialect(s.opts.ID); err != nil {
		return nil, err
	}
	return lost, s.listenProxy(ctx)
}

// dialProxy connects to the proxy in this process.
func (s *Sandbox) dialProxy() (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	go func() { // ends with the connection or the server
		err := s.server.Serve(theirs)
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			log.L.WithError(err).WithField("sandbox", s.opts.ID).Warn("connection to the proxy in this process ended")
		}
	}()
	return ours, nil
}

// listenProxy serves the proxy's frames to others on the host.
func (s *Sandbox) listenProxy(ctx context.Context) error {
	if !s.opts.VM.ProxySocket {
		return nil
	}
	l, err := net.Listen("unix", s.ProxySocket()) //nolint:noctx // a Unix socket does not wait
	if err != nil {
		return fmt.Errorf("serve proxy frames: %w", err)
	}
	if err := os.Chmod(s.ProxySocket(), 0o600); err != nil {
		_ = l.Close()
		return fmt.Errorf("serve proxy frames: %w", err)
	}
	go func() {
		if err := s.server.Listen(l); err != nil {
			log.G(ctx).WithError(err).Error("serve proxy frames")
		}
	}()
	return nil
}

// plugShare gives the guest the shared directory.
func (s *Sandbox) plugShare(ctx context.Context) error {
	if s.opts.VM.ShareType == "virtiofs" {
		err := s.vm.Plug(ctx, hypervisor.FSDevice{ID: "share", Tag: shareTag, Socket: s.virtiofsSocket()})
		if err != nil {
			return err
		}
	}
	s.timing.Plugged = time.Now()
	return nil
}

func (s *Sandbox) startPod(ctx context.Context, pod bundle.Pod) error {
	request := hyperstart.StartPodRequest{Hostname: pod.Hostname, ShareDir: shareTag, DNS: pod.DNS}
	if request.Hostname == "" {
		request.Hostname = "localhost" // mandatory
	}
	if s.dialect == hyperstart.DialectCCv2 {
		request.ShareType = s.opts.VM.ShareType
		request.Clock = time.Now().UnixNano()
		request.Sysctls = pod.Sysctls
		request.ShmSize = pod.ShmSize
	}
	s.addLegacyNetwork(ctx, &request)
	if _, err := s.client.Hyper(ctx, "startpod", "", request); err != nil {
		return err
	}
	s.timing.Pod = time.Now()
	s.timing.VM = s.vm.Timeline()
	return nil
}

// logTiming writes the phases of the boot as one line.
func (s *Sandbox) logTiming(ctx context.Context) {
	t := s.timing
	log.G(ctx).WithFields(log.Fields{
		"sandbox": s.opts.ID,
		"dialect": s.dialect.String(),
		"accel":   string(s.opts.VM.Spec.Accelerator),
		"prepare": t.VM.Exec.Sub(t.Begin).String(),
		"monitor": t.VM.Monitor.Sub(t.VM.Exec).String(),
		"ready":   t.Ready.Sub(t.VM.Monitor).String(),
		"plug":    t.Plugged.Sub(t.Ready).String(),
		"network": t.Network.Sub(t.Plugged).String(),
		"pod":     t.Pod.Sub(t.Network).String(),
		"took":    t.Pod.Sub(t.Begin).String(),
	}).Info("sandbox ready")
}

// guestEvent takes an event of the guest, which may claim anything.
func (s *Sandbox) guestEvent(_ string, e hyperstart.EventMessage) {
	c, err := s.Container(e.Container)
	if err != nil {
		return
	}
	switch e.Kind {
	case hyperstart.EventOOM:
		c.oom()
	case hyperstart.EventExited:
		c.exitedEarly(e.Process, e.Status)
	}
}

// exitedEarly takes the end of a process whose output nobody takes.
func (c *Container) exitedEarly(guestID string, status uint8) {
	p, err := c.Process(execIDOf(guestID))
	if err != nil || p.guestID() != guestID {
		return
	}
	select {
	case p.early <- status:
	default: // told before
	}
}
