package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/dnsrelay"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/netconf"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/shared"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// bootDeadline bounds the wait for the ports. It is generous because under
// emulation on a busy host a guest is slow; the host has its own deadline.
const bootDeadline = 30 * time.Second

// Config is what the program tells its agent.
type Config struct {
	// Version is reported by GUESTINFO.
	Version string
}

// Agent is the guest's side of one pod.
type Agent struct {
	version    string
	bootMillis int64

	machine    *machine.Machine
	network    *netconf.Network
	ctl        *ctlWriter
	port       *machine.Port // of ctl
	pod        pod
	containers *containers
	dns        *dnsrelay.Relay

	// booted is closed when containers can be run; bootErr is valid then.
	booted  chan struct{}
	bootErr error
}

// Run boots the guest and serves the host. It returns only on an error, after
// which the guest can only be powered off; its goroutines end with the guest. It is
// to be called once, by PID 1.
func Run(ctx context.Context, cfg Config) error {
	defer console.Guard()
	m, err := machine.Boot()
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	findCtx, cancel := context.WithTimeout(ctx, bootDeadline)
	ctl, ttyPort, err := m.FindPorts(findCtx)
	cancel()
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	reaper := ociruntime.NewReaper()
	oci := ociruntime.New(reaper)
	a := &Agent{
		version: cfg.Version, bootMillis: machine.Uptime().Milliseconds(),
		machine: m, network: netconf.New(m), ctl: &ctlWriter{w: ctl}, port: ctl, booted: make(chan struct{}),
	}
	a.containers = &containers{
		runtime: oci, drivers: m, tty: streams.NewPort(ttyPort, layout.RunDir, console.Fatal), huge: &cgroups.HugePages{},
		shared:  shared.New(hyperstart.ShareMount, layout.SharedDir, hyperstart.MemoryMount),
		bundles: layout.ContainersDir, root: layout.CgroupRoot, cgroups: layout.CgroupBase,
		newGroup: func(path string) Group { return cgroups.Group(path) }, podReady: a.podReady, notify: a.notify,
	}
	a.dns = dnsrelay.New(layout.CgroupRoot, func(question hyperstart.DNSMessage) {
		a.notify(hyperstart.EventMessage{Kind: hyperstart.EventDNS, DNS: &question})
	})
	if a.containers.oom, err = cgroups.NewOOMWatcher(a.notifyOOM); err != nil {
		return fmt.Errorf("boot: %w", err)
	}

	// These live as long as the VM: there is nothing to join them for.
	go func() { defer console.Guard(); reaper.Run(nil) }()
	go func() { defer console.Guard(); a.prepare(oci) }()
	go func() { defer console.Guard(); m.LoadShare() }()
	go func() { defer console.Guard(); console.Fatal(a.containers.tty.Serve()) }()
	a.ctl.send(hyperstart.Ready, nil)
	return newMux(a.ctl, a.handlers(), console.PowerOff).serve(ctx, ctl)
}

// prepare prepares the guest for containers while the host reacts to READY.
func (a *Agent) prepare(oci *ociruntime.Runtime) {
	defer close(a.booted)
	if a.bootErr = a.machine.Prepare(); a.bootErr != nil {
		return
	}
	if a.bootErr = cgroups.SetUp(layout.CgroupRoot, layout.CgroupBase); a.bootErr != nil {
		return
	}
	a.containers.oom.AddGuest(layout.CgroupBase)
	if err := raiseLimits(); err != nil {
		console.Logf("%v", err) // less for containers with a user namespace
	}
	if err := oci.Seal(); err != nil {
		console.Logf("%v", err) // slower, but it works
	}
}

// ready waits until the guest can run containers.
func (a *Agent) ready(ctx context.Context) error {
	if err := await(ctx, a.booted); err != nil {
		return err
	}
	if a.bootErr != nil {
		return hyperstart.Errorf(hyperstart.ClassUnavailable, "guest is not usable: %w", a.bootErr)
	}
	return nil
}

// whenReady lets a handler wait until the guest can run containers.
func (a *Agent) whenReady(h handler) handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		if err := a.ready(ctx); err != nil {
			return nil, err
		}
		return h(ctx, payload)
	}
}

func await(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handlers is the table of commands. Codes that are deprecated or go from
// guest to host are not in it and so are answered with not_implemented.
func (a *Agent) handlers() map[hyperstart.Code]handler {
	s := a.containers
	return map[hyperstart.Code]handler{
		hyperstart.GetVersion:      a.getVersion,
		hyperstart.Ping:            action(func(context.Context) error { return nil }),
		hyperstart.Ready:           action(func(context.Context) error { return machine.RescanPCI() }),
		hyperstart.OnlineCPUMem:    a.online,
		hyperstart.DumpStacks:      a.dumpStacks,
		hyperstart.GuestInfo:       a.guestInfo,
		hyperstart.StartPod:        command(a.startPod),
		hyperstart.DestroyPod:      action(a.destroyPod),
		hyperstart.SetupInterface:  a.whenReady(command(a.network.SetInterface)),
		hyperstart.SetupRoute:      a.whenReady(command(a.network.SetRoutes)),
		hyperstart.NewContainer:    command(s.create),
		hyperstart.StartContainer:  command(s.start),
		hyperstart.ExecCmd:         command(s.exec),
		hyperstart.KillContainer:   command(s.kill),
		hyperstart.SignalProcess:   command(s.signal),
		hyperstart.WinSize:         command(s.resize),
		hyperstart.PauseContainer:  command(s.pause),
		hyperstart.ResumeContainer: command(s.resume),
		hyperstart.UpdateContainer: command(s.update),
		hyperstart.StatsContainer:  query(s.stats),
		hyperstart.ListProcesses:   query(s.list),
		hyperstart.AdjustClock:     query(adjustClock),
		hyperstart.RelayDNS:        a.whenReady(command(a.dns.Serve)),
		hyperstart.AnswerDNS:       command(a.dns.Answer),
		hyperstart.DropCaches:      command(dropCaches),
		hyperstart.Quiesce:         a.whenReady(action(a.machine.Quiesce)),
		hyperstart.Reseed:          command(reseed),
		hyperstart.RefreshVolume:   command(s.shared.RefreshVolume),
		hyperstart.ReadFile:        files{s.find}.readFile,
		hyperstart.WriteFile:       files{s.find}.writeFile,
		hyperstart.RemoveContainer: command(s.remove),
	}
}

func (a *Agent) notifyOOM(container string) {
	a.notify(hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: container})
}

// notify sends an event to the host.
func (a *Agent) notify(e hyperstart.EventMessage) {
	b, err := json.Marshal(e)
	if err != nil {
		console.Logf("container %s: %v", e.Container, err)
		return
	}
	a.ctl.send(hyperstart.Event, b)
}
