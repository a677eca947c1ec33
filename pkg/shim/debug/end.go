package debug

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

const (
	defaultGrace = 30 * time.Second
	maxGrace     = time.Hour
	// signalLimit bounds one signal to a guest that may not answer.
	signalLimit = 5 * time.Second
	// endLimit bounds the release of everything.
	endLimit = 30 * time.Second
)

// errByOperator is why a VM has ended that an operator has ended.
var errByOperator = errors.New("ended by an operator")

// End answers the request of that name. What it does, it does to its end, also when the
// client has gone: the connection is closed when the directory of the sandbox is released.
func (s *Service) End(ctx context.Context, r *debugapi.EndRequest) (*debugapi.EndReply, error) {
	ctx = context.WithoutCancel(ctx)
	by := printable.Line(r.GetBy(), printable.MaxName)
	if r.GetGraceful() {
		s.opts.History.Note("shutdown", "asked for by "+by)
		return &debugapi.EndReply{}, s.shutDown(ctx, time.Duration(r.GetTimeout()))
	}
	if s.opts.Machine.Report().VM == nil {
		return nil, fmt.Errorf("kill sandbox %s: there is no vm: the sandbox is %s: %w", s.opts.Sandbox.ID(), s.opts.Sandbox.State(), errdefs.ErrFailedPrecondition)
	}
	s.opts.History.Note("kill", "asked for by "+by)
	s.opts.Machine.Kill(ctx, fmt.Errorf("%w: ccv2 kill, by %s", errByOperator, by))
	return &debugapi.EndReply{}, nil
}

// shutDown lets the containers end, and then the guest. The sandbox's own container comes
// last: others may live in its namespaces.
func (s *Service) shutDown(ctx context.Context, grace time.Duration) error {
	if grace <= 0 {
		grace = defaultGrace
	}
	bounded, cancel := context.WithTimeout(ctx, min(grace, maxGrace))
	var last []*sandbox.Container
	var others []*sandbox.Container
	for _, c := range s.opts.Sandbox.List() {
		if c.ID == s.opts.Sandbox.ID() {
			last = append(last, c)
		} else {
			others = append(others, c)
		}
	}
	terminate(bounded, others)
	terminate(bounded, last)
	cancel()
	ctx, cancel = context.WithTimeout(ctx, endLimit)
	defer cancel()
	return s.opts.Sandbox.Stop(ctx)
}

// terminate asks containers to end, and waits for them. Those that do not in time end
// with the VM.
func terminate(ctx context.Context, list []*sandbox.Container) {
	asked := make([]*sandbox.Process, 0, len(list))
	for _, c := range list {
		bounded, cancel := context.WithTimeout(ctx, signalLimit)
		err := c.Kill(bounded, "", int(unix.SIGTERM), false)
		cancel()
		if init, _ := c.Process(""); err == nil || errors.Is(err, context.DeadlineExceeded) {
			asked = append(asked, init)
		}
	}
	for _, p := range asked {
		if p.Wait(ctx) != nil {
			return // the time is over
		}
	}
}
