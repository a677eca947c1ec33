package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// What a host, or a client of the proxy, asks for in the words of an original dialect.

// createOriginal creates a container and starts it.
func createOriginal(ctx context.Context, s *containers, req *original.NewContainer) error {
	spec, err := original.Container(req)
	if err != nil {
		return err
	}
	created := req.NewContainerRequest
	created.Process = req.Process.Base()
	if created.Spec, err = json.Marshal(spec); err != nil {
		return err
	}
	return createAndStart(ctx, s, created)
}

// createAndStart leaves nothing of a container that does not start.
func createAndStart(ctx context.Context, s *containers, req hyperstart.NewContainerRequest) error {
	if err := createOCI(ctx, s, req); err != nil {
		return err
	}
	ref := hyperstart.ContainerRef{Container: req.ID}
	startErr := s.start(ctx, ref)
	if startErr == nil {
		return nil
	}
	c, err := s.find(req.ID)
	if err != nil {
		return errors.Join(startErr, err)
	}
	if p, err := c.process(hyperstart.InitProcess); err == nil {
		if err := await(ctx, p.exited); err != nil { // the start has killed it
			return errors.Join(startErr, err)
		}
	}
	return errors.Join(startErr, s.remove(ctx, ref))
}

// execSpec returns the specification of an exec process.
func execSpec(s *containers, req *original.ExecCmd) (*specs.Process, error) {
	if len(req.Process.OCI) > 0 {
		spec, err := hyperstart.Decode[specs.Process](req.Process.OCI)
		return &spec, err
	}
	c, err := s.find(req.Container)
	if err != nil {
		return nil, err
	}
	if req.Process.ID == "" {
		req.Process.ID = strconv.FormatUint(req.Process.Stdio, 10) // as the original agent
	}
	root, err := c.root()
	if err != nil {
		return nil, err
	}
	spec, err := original.ProcessOf(req.Process, root)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	return spec, nil
}

// root is the path of the container's root file system.
func (c *container) root() (string, error) {
	raw, err := os.ReadFile(filepath.Join(c.oci.Bundle, "config.json"))
	if err != nil {
		return "", fmt.Errorf("container %s: %w", c.id, err)
	}
	var config struct{ Root struct{ Path string } }
	if err := json.Unmarshal(raw, &config); err != nil {
		return "", fmt.Errorf("container %s: %w", c.id, err)
	}
	return config.Root.Path, nil
}

// lister lists the processes of containers; [containers] is one.
type lister struct{ *containers }

// psRequest is the payload of PSCONTAINER.
type psRequest struct {
	Container string   `json:"container"`
	Format    string   `json:"format"`
	Options   []string `json:"psargs"` // of the program
}

// ps lists the processes of a container: by their numbers, or as the program does.
func (s lister) ps(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[psRequest](payload)
	if err != nil {
		return nil, err
	}
	if req.Format != "json" && req.Format != "table" {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "processes in format %q: there are json and table", req.Format)
	}
	list, err := s.list(ctx, hyperstart.ContainerRef{Container: req.Container})
	if err != nil {
		return nil, err
	}
	if req.Format == "table" {
		now := time.Now()
		tasks, err := tasksOf("/proc", list, now.Add(-machine.Uptime()))
		if err != nil {
			return nil, err
		}
		return original.Table(req.Options, tasks, now)
	}
	pids := make([]int, 0, len(list.Processes))
	for _, p := range list.Processes {
		pids = append(pids, p.PID)
	}
	return json.Marshal(pids)
}

// tasksOf reads what else ps tells of processes. Those that have ended are not in it.
func tasksOf(proc string, list *hyperstart.ProcessList, boot time.Time) ([]original.Task, error) {
	tasks := make([]original.Task, 0, len(list.Processes))
	for _, p := range list.Processes {
		t := original.Task{ProcessInfo: p}
		stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(p.PID), "stat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err == nil {
			err = t.ParseStat(string(stat), boot)
		}
		if err != nil {
			return nil, fmt.Errorf("processes in format \"table\": process %d: %w", p.PID, err)
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// serveOriginal is called when a host asks for a pod without a CALL, which those of this dialect
// never do: it knows neither credits nor events.
func (a *Agent) serveOriginal() {
	a.original.Store(true)
	a.containers.tty.WithoutCredits()
}

// setUpNetwork configures the interfaces and routes that STARTPOD names.
func (a *Agent) setUpNetwork(ctx context.Context, req *hyperstart.StartPodRequest) error {
	if len(req.Interfaces)+len(req.Routes) == 0 {
		return nil
	}
	for _, i := range req.Interfaces {
		for n, address := range i.IPAddresses {
			i.IPAddresses[n].Mask = original.PrefixLength(address.Mask)
		}
		if i.NewDevice == "" {
			i.NewDevice = i.Device
		}
		if err := a.network.SetInterface(ctx, i); err != nil {
			return err
		}
	}
	return a.network.SetRoutes(ctx, original.Routes(req.Interfaces, req.Routes))
}
