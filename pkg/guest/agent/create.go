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

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/rlimits"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// create creates a container: everything is set up and its init process waits for
// STARTCONTAINER.
func (s *containers) create(ctx context.Context, req original.NewContainer) error {
	if err := s.podReady(ctx); err != nil {
		return err
	}
	if len(req.Spec) == 0 {
		return createOriginal(ctx, s, &req)
	}
	req.NewContainerRequest.Process = req.Process.Base()
	return createOCI(ctx, s, req.NewContainerRequest)
}

// createOCI creates a container from its specification.
func createOCI(ctx context.Context, s *containers, req hyperstart.NewContainerRequest) error {
	if req.Process == nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "container %s: process is needed", req.ID)
	}
	c, err := s.reserve(req.ID)
	if err != nil {
		return err
	}
	if err := s.createReserved(ctx, c, &req); err != nil {
		s.abort(c)
		s.release(c)
		return err
	}
	return nil
}

func (s *containers) createReserved(ctx context.Context, c *container, req *hyperstart.NewContainerRequest) error {
	disks, err := s.findDisks(ctx, req.Disks)
	if err != nil {
		return err
	}
	config, program, err := guestSpec(req.Spec, strings.TrimPrefix(c.cgroup, s.root), func(spec, linux map[string]json.RawMessage) error {
		if err := s.huge.Limit(c.id, linux); err != nil {
			return err
		}
		if err := cgroups.FitCPUs(linux); err != nil {
			return err
		}
		if err := cgroups.FitDevices(linux, disks, s.drivers.HasCharDevice); err != nil {
			return err
		}
		if err := s.shared.MakeMemory(req.Memory); err != nil {
			return err
		}
		return s.shared.Acquire(c.id, spec)
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.oci.Bundle, 0o700); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.oci.Bundle, "config.json"), config, 0o600); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	p, err := s.newProcess(c, hyperstart.InitProcess, req.Process, program.Terminal)
	if err != nil {
		return err
	}
	if program.changesNetwork() {
		s.drivers.LoadIptables()
	}
	child, err := s.runtime.Create(ctx, c.oci, program.Args[0], p.io)
	if err != nil {
		p.abort()
		return err
	}
	s.oom.Add(c.id, cgroups.Group(c.cgroup))
	if err := c.created(p, child); err != nil {
		p.abort()
		return err
	}
	p.run()
	return nil
}

// findDisks waits for disks, and has their numbers by the host's.
func (s *containers) findDisks(ctx context.Context, disks []hyperstart.Disk) (map[cgroups.Number]cgroups.Number, error) {
	numbers := make(map[cgroups.Number]cgroups.Number)
	for _, d := range disks {
		major, minor, err := s.drivers.FindDisk(ctx, d.Serial)
		if err != nil {
			return nil, fmt.Errorf("block device %d:%d of the host: %w", d.Major, d.Minor, err)
		}
		numbers[cgroups.Number{Major: d.Major, Minor: d.Minor}] = cgroups.Number{Major: major, Minor: minor}
	}
	return numbers, nil
}

// program is what the agent needs to know of an init process.
type program struct {
	Args     []string `json:"args"` // at least one
	Terminal bool     `json:"terminal"`

	Capabilities *specs.LinuxCapabilities `json:"capabilities"`
}

// changesNetwork reports whether the process may change the pod's network.
func (p *program) changesNetwork() bool {
	return p.Capabilities != nil && slices.Contains(p.Capabilities.Effective, "CAP_NET_ADMIN")
}

// guestSpec fits a specification to this guest: cgroups, huge pages, limits that
// nobody has set and what is automounted below the share are the guest's business. Everything else passes
// unchanged, keys that the agent does not know included. acquire does what the
// specification and its linux section ask for, and may change both.
func guestSpec(raw json.RawMessage, cgroup string, acquire func(spec, linux map[string]json.RawMessage) error) (config []byte, p program, err error) {
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
	if err := acquire(spec, linux); err != nil {
		return nil, p, err
	}
	if spec["process"], err = rlimits.Add(spec["process"]); err != nil {
		return nil, p, err
	}
	if _, ok := spec["mounts"]; !ok { // optional, but older releases of crun refuse its absence
		spec["mounts"] = json.RawMessage("[]")
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

// abort removes every trace of a container that could not be created.
func (s *containers) abort(c *container) {
	err := errors.Join(
		c.group.Kill(),
		s.runtime.Delete(context.Background(), c.oci, true),
		c.group.Remove(),
		s.shared.Release(c.id),
		os.RemoveAll(c.oci.Bundle))
	if err != nil {
		console.Logf("container %s: %v", c.id, err)
	}
	s.huge.Release(c.id)
}
