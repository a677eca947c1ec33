package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
)

// Sandbox is what is looked at; a [sandbox.Sandbox] is one.
type Sandbox interface {
	ID() string
	State() sandbox.State
	List() []*sandbox.Container
	Stop(ctx context.Context) error
}

// Machine is its VM; a [podvm.Machine] is one.
type Machine interface {
	Report() podvm.Report
	Kill(ctx context.Context, cause error)
}

// Disks are those that an operator attaches to it; a [podvm.Disks] has them.
type Disks interface {
	Attach(ctx context.Context, path string, readOnly bool) (blockdev.Attached, error)
	Detach(ctx context.Context, name string) error
}

// Options are what a Service is made with.
type Options struct {
	Namespace string
	Version   string // of the shim
	Sandbox   Sandbox
	Machine   Machine
	Disks     Disks
	History   *History
	Heartbeat Heartbeat
	// Tap and Calls, when set, have what is counted, and Spans what is traced.
	Tap   *wiretap.Tap
	Calls *calls.Counts
	Spans *spans.Recorder
}

// Service is the debug service of a sandbox.
type Service struct {
	opts   Options
	health health
	seat   seat
}

// New returns a service that does not listen yet.
func New(opts Options) *Service { return &Service{opts: opts} }

// Info answers the request of that name.
func (s *Service) Info(ctx context.Context, r *debugapi.InfoRequest) (*debugapi.Document, error) {
	text, err := json.Marshal(s.describe(ctx, r.GetGuest()))
	if err != nil {
		return nil, fmt.Errorf("encode information: %w", err)
	}
	return &debugapi.Document{Json: text}, nil
}

// describe says what is known; ask is whether the guest and the VMM are asked as well.
func (s *Service) describe(ctx context.Context, ask bool) debugapi.Info {
	report := s.opts.Machine.Report()
	info := debugapi.Info{
		Namespace: s.opts.Namespace, ID: s.opts.Sandbox.ID(), State: s.opts.Sandbox.State().String(), Paused: report.Paused,
		Shim:      debugapi.Shim{PID: os.Getpid(), Version: s.opts.Version, Goroutines: runtime.NumGoroutine()},
		Unhealthy: s.health.get(), Errors: map[string]string{}, Containers: containers(s.opts.Sandbox),
	}
	if report.Lost != nil {
		info.Lost = line(report.Lost)
	}
	for _, p := range report.Phases {
		info.Phases = append(info.Phases, phase(p))
	}
	if vm := report.VM; vm != nil {
		info.VM = &debugapi.VM{PID: vm.PID(), Source: report.Source}
		for _, d := range report.Attached {
			info.VM.Attached = append(info.VM.Attached, debugapi.Attached{ID: d.ID, Path: printable.Line(d.Path, printable.MaxText), ReadOnly: d.ReadOnly})
		}
	}
	if !ask {
		return info
	}
	var err error
	if info.Config, err = json.Marshal(report.Config); err != nil {
		info.Errors["config"] = err.Error()
	}
	askVMM(ctx, &info, report.VM)
	askGuest(ctx, &info, report)
	return info
}

// askLimit bounds what the VMM and the guest are asked, each.
const askLimit = 2 * time.Second

// askVMM asks the VMM.
func askVMM(ctx context.Context, info *debugapi.Info, vm hypervisor.VM) {
	o, ok := vm.(hypervisor.Observable)
	if !ok {
		return
	}
	info.VM.Version, info.VM.Devices = o.Version(), o.Devices()
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var err error
	if info.VM.Status, err = o.Status(ctx); err != nil {
		info.Errors["vmm"] = unanswered("the vmm", err)
		return
	}
	disks, err := o.Disks(ctx)
	if err != nil {
		info.Errors["disks"] = unanswered("the vmm", err)
	}
	for _, d := range disks {
		info.VM.Disks = append(info.VM.Disks, debugapi.Disk{
			ID: d.ID, ReadBytes: d.ReadBytes, Reads: d.Reads, ReadNanoseconds: d.ReadTime.Nanoseconds(),
			WrittenBytes: d.WrittenBytes, Writes: d.Writes, WriteNanoseconds: d.WriteTime.Nanoseconds(), Flushes: d.Flushes, Failed: d.Failed,
		})
	}
}

// askGuest asks the agent.
func askGuest(ctx context.Context, info *debugapi.Info, report podvm.Report) {
	if report.Guest == nil {
		return
	}
	info.Guest = &debugapi.Guest{Dialect: report.Guest.Dialect().String()}
	inspector, ok := report.Guest.(Inspector)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	g, err := inspector.GuestInfo(ctx)
	if err != nil {
		info.Errors["guest"] = unanswered("the guest's agent", err)
		return
	}
	info.Guest = guestOf(info.Guest.Dialect, g)
}

// guestOf is what a guest has said of itself.
func guestOf(dialect string, g hyperstart.GuestInfoReply) *debugapi.Guest {
	return &debugapi.Guest{
		Dialect: dialect, Kernel: g.Kernel, AgentVersion: g.AgentVersion, AgentRSS: g.AgentRSS,
		MemTotal: g.MemTotal, MemAvailable: g.MemAvailable, BootMillis: g.BootMillis,
	}
}

// unanswered says why there is no answer.
func unanswered(who string, err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("%s does not answer within %s: it is stopped, or hangs", who, askLimit)
	}
	return line(err)
}

// Console answers the request of that name.
func (s *Service) Console(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_ConsoleServer) error {
	o, ok := s.opts.Machine.Report().VM.(hypervisor.Observable)
	if !ok {
		return fmt.Errorf("console of sandbox %s: there is no vm yet, or none with a console: %w", s.opts.Sandbox.ID(), errdefs.ErrFailedPrecondition)
	}
	return send(ctx, o.Console(), r, out.Send, func(l hypervisor.ConsoleLine) *debugapi.Entry {
		return &debugapi.Entry{Time: l.Time, Text: l.Text}
	})
}

// Events answers the request of that name.
func (s *Service) Events(ctx context.Context, r *debugapi.LogRequest, out debugapi.Debug_EventsServer) error {
	return send(ctx, s.opts.History.log, r, out.Send, event.entry)
}

// send sends entries of a log, those of the past and, when asked to, those to come.
func send[T any](ctx context.Context, log *history.Log[T], r *debugapi.LogRequest, send func(*debugapi.Entry) error, convert func(T) *debugapi.Entry) error {
	next := uint64(0)
	for first := true; ; first = false {
		entries, lost := log.From(next)
		next += lost + uint64(len(entries))
		if first && r.GetSince() > 0 {
			lost = 0 // nobody has asked for what came before
		}
		for _, e := range entries {
			entry := convert(e)
			if entry.GetTime() < r.GetSince() {
				continue
			}
			entry.Lost, lost = lost, 0
			if err := send(entry); err != nil {
				return err
			}
		}
		if !r.GetFollow() {
			return nil
		}
		if err := log.Wait(ctx, next); err != nil {
			return nil //nolint:nilerr // the client has gone
		}
	}
}
