package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client/internal/compatspec"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// native is a ccv2 guest.
type native struct {
	*caller
	resolver
	snapshots
	volumes
	inspector
	attempts *attempts
	forwards atomic.Uint64 // connections so far, for their ids
}

func newNative(c *caller) *native {
	return &native{caller: c, resolver: resolver{c}, snapshots: snapshots{c}, volumes: volumes{c}, inspector: inspector{c}, attempts: newAttempts()}
}

// Close implements [Guest].
func (n *native) Close() error {
	n.attempts.close()
	return nil
}

var _ interface {
	Guest
	Forwarder
	Beneath
	Clock
	Resolver
} = (*native)(nil)

// ResolvesBeneath implements [Beneath]: pkg/guest/agent/shared does it.
func (n *native) ResolvesBeneath() bool { return true }

// StartPod implements [Guest].
func (n *native) StartPod(ctx context.Context, pod Pod) error {
	return n.startPod(ctx, hyperstart.StartPodRequest{
		Hostname: pod.Hostname, DNS: pod.DNS,
		ShareType: pod.ShareType, Clock: time.Now().UnixNano(), Sysctls: pod.Sysctls, ShmSize: pod.ShmSize,
	})
}

// StopPod implements [Guest]. The agent answers when the data is written; the
// rest of the guest's end only takes time.
func (n *native) StopPod(ctx context.Context) (synced bool, err error) {
	err = n.stopPod(ctx)
	return err == nil, err
}

// SetInterface implements [Guest].
func (n *native) SetInterface(ctx context.Context, i hyperstart.Interface) error {
	_, err := n.call(ctx, "setupinterface", "", i)
	return err
}

// SetRoutes implements [Guest].
func (n *native) SetRoutes(ctx context.Context, r hyperstart.Routes) error {
	_, err := n.call(ctx, "setuproute", "", r)
	return err
}

// OpenSession implements [Guest].
func (n *native) OpenSession(ctx context.Context) (Session, error) {
	s, err := n.frames.Connect(ctx)
	if err != nil {
		return nil, Classify(err)
	}
	return &session{frames: s}, nil
}

// CreateContainer implements [Guest].
func (n *native) CreateContainer(ctx context.Context, s Session, c Container) error {
	frames, err := framesOf(s)
	if err != nil {
		return err
	}
	spec, err := proxyproto.Marshal(c.Spec)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	process := &hyperstart.Process{ID: hyperstart.InitProcess, Terminal: c.Terminal}
	compatspec.SetSize(process, c.Spec.Process)
	request := hyperstart.NewContainerRequest{ID: c.ID, Process: process, Spec: spec, Disks: c.Disks, Memory: c.Memory}
	return n.create(ctx, attempt{
		id: c.ID, name: "newcontainer",
		run: func(ctx context.Context) error { return n.send(ctx, "newcontainer", frames.Token(), request) },
		undo: func(ctx context.Context) {
			n.undo(ctx, "removecontainer", hyperstart.ContainerRef{Container: c.ID})
		},
	})
}

// create runs an attempt with the limits of a command.
func (n *native) create(ctx context.Context, t attempt) error {
	waitCtx, cancelWait := n.bounded(ctx)
	defer cancelWait()
	if err := n.attempts.free(waitCtx, t); err != nil {
		return err
	}
	if err := n.turn(ctx, t.name); err != nil {
		return err
	}
	defer n.endTurn()
	if err := n.open(t.name); err != nil {
		return err
	}
	ctx, cancel := n.bounded(ctx)
	defer cancel()
	return n.attempts.do(ctx, t)
}

// send sends a command without any limit but ctx.
func (n *native) send(ctx context.Context, name, token string, data any) error {
	_, err := n.frames.Hyper(ctx, name, token, data)
	return Classify(err)
}

// undo sends a command that undoes an abandoned one.
func (n *native) undo(ctx context.Context, name string, data any) {
	if err := n.send(ctx, name, "", data); err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
		n.warn(fmt.Sprintf("undo what the guest did too late: %s", err))
	}
}

// StartContainer implements [Guest].
func (n *native) StartContainer(ctx context.Context, id string) error {
	_, err := n.call(context.WithoutCancel(ctx), "startcontainer", "", hyperstart.ContainerRef{Container: id})
	return err
}

// RemoveContainer implements [Guest].
func (n *native) RemoveContainer(ctx context.Context, id string) error {
	_, err := n.call(ctx, "removecontainer", "", hyperstart.ContainerRef{Container: id})
	return err
}

// Exec implements [Guest].
func (n *native) Exec(ctx context.Context, s Session, e Exec) error {
	frames, err := framesOf(s)
	if err != nil {
		return err
	}
	spec := *e.Process
	spec.Terminal = e.Terminal
	spec.ApparmorProfile, spec.SelinuxLabel = "", "" // the guest has neither
	raw, err := proxyproto.Marshal(&spec)
	if err != nil {
		return fmt.Errorf("encode process: %w", err)
	}
	process := &hyperstart.Process{ID: processIDOf(e.ID), Terminal: e.Terminal, OCI: raw}
	compatspec.SetSize(process, e.Process)
	return n.exec(ctx, frames, hyperstart.ExecCmdRequest{Container: e.Container, Process: process})
}

// exec starts a process. One that starts too late is killed, and its id is free
// when it has exited.
func (n *native) exec(ctx context.Context, s *FrameSession, request hyperstart.ExecCmdRequest) error {
	return n.create(ctx, attempt{
		id: request.Container + "/" + request.Process.ID, name: "execcmd",
		run: func(ctx context.Context) error { return n.send(ctx, "execcmd", s.Token(), request) },
		undo: func(ctx context.Context) {
			kill := hyperstart.SignalProcessRequest{Container: request.Container, Process: request.Process.ID, Signal: int(unix.SIGKILL)}
			n.undo(ctx, "signalprocess", kill)
			select {
			case <-s.Done():
			case <-ctx.Done():
			}
			if _, err := s.Exit(); errors.Is(err, ErrSessionLost) {
				n.awaitGone(ctx, kill)
			}
		},
	})
}

// goneInterval is how often awaitGone asks.
const goneInterval = 250 * time.Millisecond

// awaitGone waits until the guest does not know a process any more whose session
// was closed before its end.
func (n *native) awaitGone(ctx context.Context, kill hyperstart.SignalProcessRequest) {
	again := time.NewTicker(goneInterval)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
		if n.send(ctx, "signalprocess", "", kill) != nil {
			return
		}
	}
}

// Forward implements [Forwarder].
func (n *native) Forward(ctx context.Context, s Session, port uint16) error {
	frames, err := framesOf(s)
	if err != nil {
		return err
	}
	process := &hyperstart.Process{ID: fmt.Sprintf("forward-%d", n.forwards.Add(1)), Port: port}
	return n.exec(ctx, frames, hyperstart.ExecCmdRequest{Container: n.vm, Process: process})
}

// Signal implements [Guest]. A session's frames have no room for some signals,
// nor for all processes; commands have.
func (n *native) Signal(ctx context.Context, s Session, t Target, signal int) error {
	frames, err := framesOf(s)
	switch {
	case err != nil:
		return err
	case t.ExecID == "" && (t.All || !fitsFrame(signal)):
		return n.killContainer(ctx, t, signal)
	case !fitsFrame(signal):
		return n.signalProcess(ctx, t, signal)
	}
	return n.signalSession(ctx, frames, signal)
}

// AdjustClock implements [Clock].
func (n *native) AdjustClock(ctx context.Context, a hyperstart.AdjustClockRequest) (time.Time, error) {
	answer, err := n.call(ctx, "adjustclock", "", a)
	if err != nil {
		return time.Time{}, err
	}
	var reply hyperstart.AdjustClockReply
	if err := json.Unmarshal(answer, &reply); err != nil {
		return time.Time{}, fmt.Errorf("decode time: %w", err)
	}
	return time.Unix(0, reply.Now), nil
}

// Update implements [Guest].
func (n *native) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	raw, err := proxyproto.Marshal(resources)
	if err != nil {
		return fmt.Errorf("encode resources: %w", err)
	}
	return n.mutate(ctx, "updatecontainer", "", hyperstart.UpdateContainerRequest{Container: id, Resources: raw})
}

// Pause implements [Guest].
func (n *native) Pause(ctx context.Context, id string) error {
	return n.mutate(ctx, "pausecontainer", "", hyperstart.ContainerRef{Container: id})
}

// Resume implements [Guest].
func (n *native) Resume(ctx context.Context, id string) error {
	return n.mutate(ctx, "resumecontainer", "", hyperstart.ContainerRef{Container: id})
}

// Stats implements [Guest].
func (n *native) Stats(ctx context.Context, id string) (*hyperstart.Stats, error) {
	answer, err := n.call(ctx, "statscontainer", "", hyperstart.ContainerRef{Container: id})
	if err != nil {
		return nil, err
	}
	var stats hyperstart.Stats
	if err := json.Unmarshal(answer, &stats); err != nil {
		return nil, fmt.Errorf("decode statistics: %w", printable.Error(err, printable.MaxText))
	}
	return &stats, nil
}

// Processes implements [Guest].
func (n *native) Processes(ctx context.Context, id string) ([]ProcessInfo, error) {
	answer, err := n.call(ctx, "listprocesses", "", hyperstart.ContainerRef{Container: id})
	if err != nil {
		return nil, err
	}
	var list hyperstart.ProcessList
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("decode process list: %w", printable.Error(err, printable.MaxText))
	}
	var all []ProcessInfo
	for _, p := range list.Processes {
		execID, known := execIDOf(p.Process)
		all = append(all, ProcessInfo{
			PID: p.PID, ExecID: execID, Init: known && execID == "",
			Name: p.Name, Args: p.Args, UID: p.UID, GID: p.GID,
		})
	}
	return all, nil
}
