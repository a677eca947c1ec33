package agent

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/rlimits"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// exec starts a process in a container: a program of the container, or a
// connection to a port.
func (s *containers) exec(ctx context.Context, req original.ExecCmd) error {
	if req.Process == nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "exec in container %s: process is needed", req.Container)
	}
	if req.Process.Port != 0 {
		return s.connect(req.Container, req.Process.Base())
	}
	spec, err := execSpec(s, &req)
	if err != nil {
		return err
	}
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "exec in container %s: no command to run", req.Container)
	}
	spec.Rlimits = rlimits.With(spec.Rlimits)
	if spec.Terminal && req.Process.Rows != 0 && req.Process.Columns != 0 {
		// An exec runs at once, before its terminal could be resized from here.
		spec.ConsoleSize = &specs.Box{Height: uint(req.Process.Rows), Width: uint(req.Process.Columns)}
	}
	if req.Container == guestItself {
		return s.launch(guestItself, req.Process.Base(), spec.Terminal, func(c *container, p *process) (*ociruntime.Child, error) {
			if spec.Args[0] == machine.ReceiveName && !spec.Terminal {
				return s.runtime.Spawn(c.cgroup, spec.Args, p.io)
			}
			return s.runtime.Run(c.cgroup, spec, p.io)
		})
	}
	return s.launch(req.Container, req.Process.Base(), spec.Terminal, func(c *container, p *process) (*ociruntime.Child, error) {
		return s.runtime.Exec(ctx, c.oci, p.id, spec, p.io)
	})
}

// connect starts a process that is a connection to a port of the guest's
// loopback. It belongs to the container: it ends with it and counts for its
// limits.
func (s *containers) connect(id string, req *hyperstart.Process) error {
	return s.launch(id, req, false, func(c *container, p *process) (*ociruntime.Child, error) {
		child, err := s.runtime.Spawn(c.cgroup, []string{machine.ForwardName, strconv.Itoa(int(req.Port))}, p.io)
		if err != nil {
			return nil, fmt.Errorf("connect to port %d: %w", req.Port, err)
		}
		return child, nil
	})
}

// launch adds an exec process to a container; start starts it.
func (s *containers) launch(
	id string, req *hyperstart.Process, terminal bool, start func(*container, *process) (*ociruntime.Child, error),
) error {
	if err := checkID("process", req.ID); err != nil {
		return err
	}
	c, err := placeOf(s, id)
	if err != nil {
		return err
	}
	p, err := s.newProcess(c, req.ID, req, terminal)
	if err != nil {
		return err
	}
	if err := c.reserve(p); err != nil {
		p.abort()
		return err
	}
	child, err := start(c, p)
	if err != nil {
		c.release(p)
		p.abort()
		return err
	}
	c.started(p, child)
	p.run()
	return nil
}
