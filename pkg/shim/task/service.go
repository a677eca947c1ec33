package task

import (
	"context"
	"fmt"
	"os"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
)

// Service serves the tasks of one sandbox.
type Service struct {
	sandbox  *sandbox.Sandbox
	shutdown shutdown.Service
	counts   *calls.Counts   // nil when nobody counts
	spans    *spans.Recorder // nil when nobody traces
}

var (
	_ taskapi.TTRPCTaskService      = (*Service)(nil)
	_ shim.TTRPCServerUnaryOptioner = (*Service)(nil)
)

// New returns the service of a sandbox. Its Shutdown asks sd to end the process. counts, when
// set, has its calls, and traced the spans of those whose client is traced.
func New(s *sandbox.Sandbox, sd shutdown.Service, counts *calls.Counts, traced *spans.Recorder) *Service {
	return &Service{sandbox: s, shutdown: sd, counts: counts, spans: traced}
}

// RegisterTTRPC implements [shim.TTRPCService].
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	registerVersion2(server, s)
	return nil
}

// Create creates a container; the first one boots the VM.
func (s *Service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	if r.Checkpoint != "" || r.ParentCheckpoint != "" {
		return nil, fmt.Errorf("create container %s from a checkpoint: %w", r.ID, errdefs.ErrNotImplemented)
	}
	if r.ID == s.sandbox.ID() && s.sandbox.State() == sandbox.StateReady && s.sandbox.Containers() > 0 {
		if _, err := s.sandbox.Container(r.ID); err != nil { // its VM has the network and the limits of then
			return nil, fmt.Errorf("create container %s: containers that have joined it before are still in its VM, which cannot be started anew: "+
				"remove them first: %w", r.ID, errdefs.ErrFailedPrecondition)
		}
	}
	c, err := s.sandbox.Create(ctx, sandbox.CreateRequest{
		ID:     r.ID,
		Bundle: r.Bundle,
		Rootfs: mount.FromProto(r.Rootfs),
		Stdio:  stdio.Config{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	if err != nil {
		s.shutdownIfOrphaned(ctx, nil)
		return nil, err
	}
	return &taskapi.CreateTaskResponse{Pid: uint32(c.PID())}, nil
}

// Start runs a container's init process or an exec process.
func (s *Service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	p, err := c.Process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID == "" {
		err = c.Start(ctx)
	} else {
		err = c.StartExec(ctx, r.ExecID)
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.StartResponse{Pid: uint32(p.PID())}, nil
}

// Delete removes a container or an exec process that has ended.
func (s *Service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	p, err := c.Process(r.ExecID)
	if err != nil {
		return nil, err
	}
	var exit sandbox.Exit
	if r.ExecID == "" {
		exit, err = c.Delete(ctx)
		if c.State() == sandbox.ContainerDeleted {
			s.shutdownIfOrphaned(ctx, c.Removed())
		}
	} else {
		exit, err = c.DeleteExec(ctx, r.ExecID)
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.DeleteResponse{Pid: uint32(p.PID()), ExitStatus: exit.Status, ExitedAt: timestamp(exit.At)}, nil
}

// Exec registers an exec process.
func (s *Service) Exec(_ context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	err = c.Exec(r.ExecID, stdio.Config{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}, r.Spec.GetValue())
	return &emptypb.Empty{}, err
}

// ResizePty sets the size of a terminal.
func (s *Service) ResizePty(ctx context.Context, r *taskapi.ResizePtyRequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, p.Resize(ctx, r.Height, r.Width)
}

// CloseIO closes the stdin of a process after what was written to it.
func (s *Service) CloseIO(_ context.Context, r *taskapi.CloseIORequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if !r.Stdin {
		return &emptypb.Empty{}, nil
	}
	return &emptypb.Empty{}, p.CloseStdin()
}

// State answers from memory, whatever the guest is doing.
func (s *Service) State(_ context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	p, err := c.Process(r.ExecID)
	if err != nil {
		return nil, err
	}
	state := c.State()
	if state == sandbox.ContainerCreating { // as with runc; the kubelet's cAdvisor would keep the pid 0 of its cgroup for good
		return nil, fmt.Errorf("container %s is still being created: %w", r.ID, errdefs.ErrNotFound)
	}
	status := containerStatus(state)
	if r.ExecID != "" {
		status = processStatus(p.State())
	}
	io, exit := p.Stdio(), p.Exit() // after the state: what has stopped has an exit
	return &taskapi.StateResponse{
		ID: r.ID, ExecID: r.ExecID, Bundle: c.Bundle, Pid: uint32(p.PID()), Status: status,
		Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr, Terminal: io.Terminal,
		ExitStatus: exit.Status, ExitedAt: timestamp(exit.At),
	}, nil
}

// Pause stops a container.
func (s *Service) Pause(ctx context.Context, r *taskapi.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Pause(ctx)
}

// Resume lets a paused container continue.
func (s *Service) Resume(ctx context.Context, r *taskapi.ResumeRequest) (*emptypb.Empty, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Resume(ctx)
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Kill(ctx, r.ExecID, int(r.Signal), r.All)
}

// Pids lists the processes of a container by their pids on the host.
func (s *Service) Pids(ctx context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	processes, err := c.Processes(ctx)
	if err != nil {
		return nil, err
	}
	return convertProcesses(processes)
}

// Checkpoint is not possible yet.
func (s *Service) Checkpoint(_ context.Context, r *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, fmt.Errorf("checkpoint container %s: %w", r.ID, errdefs.ErrNotImplemented)
}

// Update changes the limits of a container.
func (s *Service) Update(ctx context.Context, r *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Update(ctx, r.Resources.GetValue())
}

// Wait waits for the end of a process.
func (s *Service) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx); err != nil {
		return nil, err
	}
	exit := p.Exit()
	return &taskapi.WaitResponse{ExitStatus: exit.Status, ExitedAt: timestamp(exit.At)}, nil
}

// Stats returns the resource usage of a container.
func (s *Service) Stats(ctx context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	stats, err := c.Stats(ctx)
	if err != nil {
		return nil, err
	}
	return convertStats(stats)
}

// Connect returns which processes serve the container. Without a container it
// returns the shim's alone, as runc's does.
func (s *Service) Connect(_ context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	if r.ID == "" {
		return &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}, nil
	}
	c, err := s.sandbox.Container(r.ID)
	if err != nil {
		return nil, err
	}
	return &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid()), TaskPid: uint32(c.PID())}, nil
}

// Shutdown ends the shim when no container is left. It answers when the VM is
// gone and everything was released.
func (s *Service) Shutdown(ctx context.Context, _ *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	if s.sandbox.Containers() > 0 {
		return &emptypb.Empty{}, nil
	}
	err := s.sandbox.Stop(ctx)
	s.shutdown.Shutdown()
	return &emptypb.Empty{}, err
}

// shutdownIfOrphaned ends a shim without containers when the client of the call
// has gone, which is how the end of a containerd looks. The next containerd may
// have looked for the container when it was still there: it would keep the shim
// and its VM, and never call again. after is what has to come first, or nil.
func (s *Service) shutdownIfOrphaned(ctx context.Context, after <-chan struct{}) {
	if ctx.Err() == nil {
		return // the client, which gets the answer, decides
	}
	ctx = context.WithoutCancel(ctx)
	go func() { // ends with the removal, which has deadlines of its own
		if after != nil {
			<-after
		}
		if _, err := s.Shutdown(ctx, &taskapi.ShutdownRequest{}); err != nil {
			log.G(ctx).WithError(err).Error("stop orphaned sandbox")
		}
	}()
}

func (s *Service) process(id, execID string) (*sandbox.Process, error) {
	c, err := s.sandbox.Container(id)
	if err != nil {
		return nil, err
	}
	return c.Process(execID)
}
