package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	runc "github.com/containerd/go-runc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// warmID is the id of the container of warmUp.
const warmID = "ccv2-warm-up"

// warmUp runs a container before there is a pod, so that the pod's first one finds the OCI
// runtime read, and, by an emulated processor, translated. It leaves nothing.
func (a *Agent) warmUp(ctx context.Context) (err error) {
	s := a.containers
	c := ociruntime.Container{ID: warmID, Bundle: filepath.Join(layout.RunDir, warmID)}
	cgroup := filepath.Join(s.cgroups, warmID)
	rootfs := filepath.Join(c.Bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.newGroup(cgroup).Remove(), os.RemoveAll(c.Bundle)) }()
	raw, err := json.Marshal(ociruntime.Usual(rootfs))
	if err != nil {
		return err
	}
	config, program, err := guestSpec(raw, cgroup[len(s.root):], func(map[string]json.RawMessage, map[string]json.RawMessage) error { return nil })
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), config, 0o600); err != nil {
		return err
	}
	null, err := runc.NewNullIO()
	if err != nil {
		return err
	}
	defer null.Close()
	child, err := s.runtime.Create(ctx, c, program.Args[0], nullIO{null})
	if err != nil {
		return err
	}
	if err = s.runtime.Start(ctx, c); err == nil {
		child.Wait()
	}
	return errors.Join(err, s.runtime.Delete(context.WithoutCancel(ctx), c, err != nil))
}

// nullIO is the streams of a process that nobody reads.
type nullIO struct{ null runc.IO }

// Pipes implements [ociruntime.IO].
func (n nullIO) Pipes() runc.IO { return n.null }

// Console implements [ociruntime.IO].
func (nullIO) Console() runc.ConsoleSocket { return nil }

// Attach implements [ociruntime.IO].
func (nullIO) Attach() error { return nil }
