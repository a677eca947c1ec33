package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// newContainer creates a container: everything is set up and its first process
// waits for STARTCONTAINER.
func (a *Agent) newContainer(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.NewContainerRequest](payload)
	if err != nil {
		return nil, err
	}
	if req.Process == nil || len(req.Spec) == 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "container %s: process and spec are needed", req.ID)
	}
	if err := a.podReady(ctx); err != nil {
		return nil, err
	}
	c, err := a.reserve(req.ID)
	if err != nil {
		return nil, err
	}
	if err := a.create(ctx, c, &req); err != nil {
		a.erase(c)
		a.drop(c)
		return nil, err
	}
	return nil, nil
}

func (a *Agent) create(ctx context.Context, c *container, req *hyperstart.NewContainerRequest) error {
	config, program, err := a.guestSpec(req.Spec, c.id, strings.TrimPrefix(string(c.group), layout.CgroupRoot))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "config.json"), config, 0o600); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	p, err := a.newProcess(c, hyperstart.InitProcess, req.Process, program.Terminal)
	if err != nil {
		return err
	}
	if program.changesNetwork() {
		a.machine.LoadIptables()
	}
	w := a.reaper.open()
	defer w.close()
	pid, err := a.launch(c, p, func() error { return a.oci.create(ctx, c, p.io) })
	if err == nil {
		err = checkProgram(pid, program)
	}
	if err != nil {
		a.abandon(p)
		return nameProgram(err, program.Args[0])
	}
	a.oom.Add(c.id, c.group)
	c.mu.Lock()
	c.init, c.procs[p.id], p.pid = p, p, pid
	c.state = stateCreated
	c.mu.Unlock()
	a.run(p, w.claim(pid))
	return nil
}

// launch runs the OCI runtime and takes the terminal and the pid from it.
func (a *Agent) launch(c *container, p *process, invoke func() error) (int, error) {
	if err := invoke(); err != nil {
		return 0, err
	}
	if err := p.io.Attach(); err != nil {
		return 0, err
	}
	pid, err := readPid(c.pidFile(p.id))
	if err != nil {
		return 0, fmt.Errorf("read pid of process %s: %w", p.id, err)
	}
	return pid, nil
}

// program is what the agent needs to know of a process.
type program struct {
	Terminal bool     `json:"terminal"`
	Args     []string `json:"args"` // at least one
	Env      []string `json:"env"`
	Cwd      string   `json:"cwd"`

	Capabilities *specs.LinuxCapabilities `json:"capabilities"`
}

// changesNetwork reports whether the process may change the pod's network.
func (p *program) changesNetwork() bool {
	return p.Capabilities != nil && slices.Contains(p.Capabilities.Effective, "CAP_NET_ADMIN")
}

// guestSpec fits a specification to this guest: cgroups and huge pages are the
// guest's business. Everything else passes unchanged, keys that the agent does not
// know included.
func (a *Agent) guestSpec(raw json.RawMessage, id, cgroup string) (config []byte, p program, err error) {
	var spec map[string]json.RawMessage
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, p, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode spec: %w", err)
	}
	if err := json.Unmarshal(spec["process"], &p); err != nil {
		return nil, p, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode process of spec: %w", err)
	}
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, p, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "spec has no command to run")
	}
	linux := map[string]json.RawMessage{}
	if section, ok := spec["linux"]; ok {
		if err := json.Unmarshal(section, &linux); err != nil {
			return nil, p, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode linux section of spec: %w", err)
		}
	}
	if err := a.huge.Limit(id, linux); err != nil {
		return nil, p, err
	}
	if linux["cgroupsPath"], err = json.Marshal(cgroup); err != nil {
		return nil, p, err
	}
	if spec["linux"], err = json.Marshal(linux); err != nil {
		return nil, p, err
	}
	config, err = json.Marshal(spec)
	return config, p, err
}

// execCmd starts a process in a container.
func (a *Agent) execCmd(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.ExecCmdRequest](payload)
	if err != nil {
		return nil, err
	}
	if req.Process != nil && req.Process.Port != 0 {
		if err := checkID("process", req.Process.ID); err != nil {
			return nil, err
		}
		c, err := a.find(req.Container)
		if err != nil {
			return nil, err
		}
		return nil, a.connect(c, req.Process)
	}
	if req.Process == nil || len(req.Process.OCI) == 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "exec in container %s: process with oci is needed", req.Container)
	}
	spec, err := hyperstart.Decode[specs.Process](req.Process.OCI)
	if err != nil {
		return nil, err
	}
	if err := checkID("process", req.Process.ID); err != nil {
		return nil, err
	}
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "exec in container %s: no command to run", req.Container)
	}
	c, err := a.find(req.Container)
	if err != nil {
		return nil, err
	}
	return nil, a.exec(ctx, c, req.Process, spec)
}

func (a *Agent) exec(ctx context.Context, c *container, req *hyperstart.Process, spec specs.Process) error {
	p, err := a.newProcess(c, req.ID, req, spec.Terminal)
	if err != nil {
		return err
	}
	if err := c.begin(p); err != nil {
		a.abandon(p)
		return err
	}
	if spec.Terminal && req.Rows != 0 && req.Columns != 0 {
		// An exec runs at once, before its terminal could be resized from here.
		spec.ConsoleSize = &specs.Box{Height: uint(req.Rows), Width: uint(req.Columns)}
	}
	if err := checkProgram(c.initPID(), program{Args: spec.Args, Env: spec.Env, Cwd: spec.Cwd}); err != nil {
		c.forget(p)
		a.abandon(p)
		return err
	}
	w := a.reaper.open()
	defer w.close()
	pid, err := a.launch(c, p, func() error { return a.oci.exec(ctx, c, p, spec, p.io) })
	if err != nil {
		c.forget(p)
		a.abandon(p)
		return nameProgram(err, spec.Args[0])
	}
	if err := os.Remove(c.pidFile(p.id)); err != nil {
		console.Logf("container %s: %v", c.id, err)
	}
	c.setPID(p, pid)
	a.run(p, w.claim(pid))
	return nil
}

// erase removes every trace of a container that could not be created or has
// ended. What is not there is no error.
func (a *Agent) erase(c *container) {
	if err := c.group.Kill(); err != nil {
		console.Logf("container %s: %v", c.id, err)
	}
	if _, err := os.Stat(filepath.Join(layout.RuntimeState, c.id)); err == nil {
		if err := a.oci.delete(context.Background(), c, true); err != nil {
			console.Logf("container %s: %v", c.id, err)
		}
	}
	err := errors.Join(
		c.group.Remove(),
		os.RemoveAll(filepath.Join(layout.RuntimeState, c.id)),
		os.RemoveAll(c.dir))
	if err != nil {
		console.Logf("container %s: %v", c.id, err)
	}
	a.huge.Release(c.id)
}
