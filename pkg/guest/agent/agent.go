package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	runc "github.com/containerd/go-runc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/netconf"
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

	machine *machine.Machine
	reaper  *reaper
	ctl     *ctlWriter
	port    *machine.Port // of ctl
	tty     *streams.Port
	oci     *ociRuntime
	oom     *cgroups.OOMWatcher
	pod     pod
	huge    cgroups.HugePages

	network *netconf.Network

	mu         sync.Mutex            // guards containers
	containers map[string]*container // by id

	// booted is closed when containers can be run; bootErr is valid then.
	booted  chan struct{}
	bootErr error
}

// Run boots the guest and serves the host. It returns only on an error, after
// which the guest can only be powered off; goroutines are left behind then. It
// is to be called once, by PID 1.
func Run(ctx context.Context, cfg Config) error {
	defer console.Guard()
	a := &Agent{
		version:    cfg.Version,
		containers: map[string]*container{},
		booted:     make(chan struct{}),
		reaper:     newReaper(),
	}
	var err error
	if a.machine, err = machine.Boot(); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	a.network = netconf.New(a.machine)
	findCtx, cancel := context.WithTimeout(ctx, bootDeadline)
	ctl, ttyPort, err := a.machine.FindPorts(findCtx)
	cancel()
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	a.port = ctl
	a.ctl = &ctlWriter{w: ctl}
	a.tty = streams.NewPort(ttyPort, layout.RunDir, console.Fatal)
	a.oci = newRuntime(a.reaper)
	a.bootMillis = machine.Uptime().Milliseconds()

	// These live as long as the VM: there is nothing to join them for.
	go func() { defer console.Guard(); a.reaper.run(nil) }()
	go func() { defer console.Guard(); a.bootLate() }()
	go func() { defer console.Guard(); a.machine.LoadShare() }()
	go func() { defer console.Guard(); console.Fatal(a.tty.Serve()) }()
	a.ctl.send(hyperstart.Ready, nil)
	return newMux(a.ctl, a.handlers(), console.PowerOff).serve(ctx, ctl)
}

// bootLate prepares the guest for containers while the host reacts to READY.
func (a *Agent) bootLate() {
	defer close(a.booted)
	steps := []func() error{
		a.machine.Prepare,
		func() error { return cgroups.SetUp(layout.CgroupRoot, layout.CgroupBase) },
		func() (err error) { a.oom, err = cgroups.NewOOMWatcher(a.sendOOM); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			a.bootErr = err
			return
		}
	}
	if err := a.oci.seal(); err != nil {
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
	return map[hyperstart.Code]handler{
		hyperstart.GetVersion:      a.getVersion,
		hyperstart.StartPod:        a.startPod,
		hyperstart.DestroyPod:      a.destroyPod,
		hyperstart.ExecCmd:         a.execCmd,
		hyperstart.Ready:           a.rescan,
		hyperstart.WinSize:         a.winSize,
		hyperstart.Ping:            func(context.Context, []byte) ([]byte, error) { return nil, nil },
		hyperstart.WriteFile:       a.writeFile,
		hyperstart.ReadFile:        a.readFile,
		hyperstart.NewContainer:    a.newContainer,
		hyperstart.KillContainer:   a.killContainer,
		hyperstart.OnlineCPUMem:    a.onlineCPUMem,
		hyperstart.SetupInterface:  a.setupInterface,
		hyperstart.SetupRoute:      a.setupRoute,
		hyperstart.RemoveContainer: a.removeContainer,
		hyperstart.StartContainer:  a.startContainer,
		hyperstart.PauseContainer:  a.pauseContainer,
		hyperstart.ResumeContainer: a.resumeContainer,
		hyperstart.UpdateContainer: a.updateContainer,
		hyperstart.StatsContainer:  a.statsContainer,
		hyperstart.ListProcesses:   a.listProcesses,
		hyperstart.DumpStacks:      a.dumpStacks,
		hyperstart.GuestInfo:       a.guestInfo,
		hyperstart.SignalProcess:   a.signalProcess,
	}
}

var _ runc.ProcessMonitor = (*reaper)(nil)

func (a *Agent) sendOOM(container string) {
	a.sendEvent(hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: container})
}

func (a *Agent) sendEvent(e hyperstart.EventMessage) {
	b, err := json.Marshal(e)
	if err != nil {
		console.Logf("container %s: %v", e.Container, err)
		return
	}
	a.ctl.send(hyperstart.Event, b)
}
