package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/commands"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/dnsrelay"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/netconf"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/rlimits"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/shared"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/shell"
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
	ctl        *commands.Writer
	port       *machine.Port // of ctl
	pod        pod
	containers *containers
	dns        *dnsrelay.Relay
	original   atomic.Bool // the host is of an original dialect

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
		machine: m, network: netconf.New(m), ctl: commands.NewWriter(ctl), port: ctl, booted: make(chan struct{}),
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
	go func() { defer console.Guard(); <-a.booted; shell.Serve(reaper.Finish) }()
	go func() { defer console.Guard(); console.Fatal(a.containers.tty.Serve()) }()
	a.ctl.Send(hyperstart.Ready, nil)
	mux := commands.New(a.ctl, a.handlers(), console.PowerOff)
	mux.Original = a.serveOriginal
	return mux.Serve(ctx, ctl)
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
	if err := errors.Join(rlimits.Raise(), oci.Seal()); err != nil {
		console.Logf("%v", err) // less for containers with a user namespace, or slower, but it works
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
func (a *Agent) whenReady(h commands.Handler) commands.Handler {
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
func (a *Agent) handlers() map[hyperstart.Code]commands.Handler {
	s := a.containers
	return map[hyperstart.Code]commands.Handler{
		hyperstart.GetVersion:      a.getVersion,
		hyperstart.Ping:            commands.Action(func(context.Context) error { return nil }),
		hyperstart.Ready:           commands.Action(func(context.Context) error { return machine.RescanPCI() }),
		hyperstart.OnlineCPUMem:    a.online,
		hyperstart.DumpStacks:      a.dumpStacks,
		hyperstart.GuestInfo:       a.guestInfo,
		hyperstart.StartPod:        commands.Command(a.startPod),
		hyperstart.DestroyPod:      commands.Action(a.destroyPod),
		hyperstart.SetupInterface:  a.whenReady(commands.Command(a.network.SetInterface)),
		hyperstart.SetupRoute:      a.whenReady(commands.Command(a.network.SetRoutes)),
		hyperstart.NewContainer:    commands.Command(s.create),
		hyperstart.StartContainer:  commands.Command(s.start),
		hyperstart.ExecCmd:         commands.Command(s.exec),
		hyperstart.KillContainer:   commands.Command(s.kill),
		hyperstart.SignalProcess:   commands.Command(s.signal),
		hyperstart.WinSize:         commands.Command(s.resize),
		hyperstart.PauseContainer:  commands.Command(s.pause),
		hyperstart.ResumeContainer: commands.Command(s.resume),
		hyperstart.UpdateContainer: commands.Command(s.update),
		hyperstart.StatsContainer:  commands.Query(s.stats),
		hyperstart.ListProcesses:   commands.Query(s.list),
		hyperstart.PsContainer:     lister{s}.ps,
		hyperstart.AdjustClock:     commands.Query(adjustClock),
		hyperstart.RelayDNS:        a.whenReady(commands.Command(a.dns.Serve)),
		hyperstart.AnswerDNS:       commands.Command(a.dns.Answer),
		hyperstart.DropCaches:      commands.Command(dropCaches),
		hyperstart.Quiesce:         a.whenReady(commands.Action(a.machine.Quiesce)),
		hyperstart.Reseed:          commands.Command(reseed),
		hyperstart.WarmUp:          a.whenReady(commands.Action(a.warmUp)),
		hyperstart.RefreshVolume:   commands.Command(s.shared.RefreshVolume),
		hyperstart.ReadFile:        files{s.find}.readFile,
		hyperstart.WriteFile:       files{s.find}.writeFile,
		hyperstart.RemoveContainer: commands.Command(s.remove),
	}
}

func (a *Agent) notifyOOM(container string) {
	a.notify(hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: container})
}

// notify sends an event to the host.
func (a *Agent) notify(e hyperstart.EventMessage) {
	if a.original.Load() {
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		console.Logf("container %s: %v", e.Container, err)
		return
	}
	a.ctl.Send(hyperstart.Event, b)
}
