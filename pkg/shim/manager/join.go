package manager

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// server is the shim that serves a sandbox.
type server struct {
	sandbox string // its id
	address string // where it listens
}

// joined finds the sandbox whose namespaces a container asks for that is no pod's:
// clients name them by the pid of another container, whose bundle is beside this one.
// It is nil when there is none: then Create says what it cannot join, in words that
// reach its caller.
func joined(dir string) (*server, error) {
	b, err := bundle.Load(dir)
	if err != nil || b.OfPod() {
		return nil, err
	}
	var (
		found *server
		first specs.LinuxNamespace
	)
	for _, ns := range b.Spec.Linux.Namespaces {
		pid, named := bundle.NamespacePID(ns)
		if !named {
			continue
		}
		owner, err := serverOf(filepath.Join(dir, ".."), pid)
		switch {
		case err != nil:
			return nil, fmt.Errorf("find the container of %s: %w", ns.Path, err)
		case owner == nil:
		case found == nil:
			found, first = owner, ns
		case found.sandbox != owner.sandbox:
			return nil, fmt.Errorf("%s is of sandbox %s and %s of sandbox %s: a container can be in one VM alone: %w",
				first.Path, found.sandbox, ns.Path, owner.sandbox, errdefs.ErrInvalidArgument)
		}
	}
	if found != nil && !shim.CanConnect(found.address) {
		return nil, fmt.Errorf("%s is of sandbox %s, whose shim does not answer: %w", first.Path, found.sandbox, errdefs.ErrUnavailable)
	}
	return found, nil
}

// serverOf finds the container with a pid among those that have their bundles in a
// directory, and returns its shim; nil when there is none that lives.
func serverOf(dir string, pid int) (*server, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		sibling := filepath.Join(dir, entry.Name())
		note, err := bundle.LoadNote(sibling)
		if err != nil || note.PID != pid {
			continue
		}
		if _, err := bundle.LoadExit(sibling); err == nil {
			continue // it has ended, and its pid may be another container's
		}
		state, err := store.Open(note.Dir).Load()
		if errors.Is(err, errdefs.ErrNotFound) || err == nil && !state.Shim.IsParent(pid) {
			continue // the note outlived its shim, and the pid may be anyone's
		}
		if err != nil {
			return nil, err // it may live, and nobody else may have its network
		}
		address, err := bundle.LoadAddress(sibling)
		if err != nil {
			return nil, err
		}
		return &server{sandbox: note.SandboxID, address: address.Address}, nil
	}
	return nil, nil
}

// servesOthers reports whether containers of other bundles are left that have joined the
// sandbox of one. In a pod that does not count: its containers are deleted before it,
// and one that is given up must go.
func servesOthers(dir string, note bundle.Note) bool {
	if b, err := bundle.Load(dir); err != nil || b.OfPod() {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(dir, ".."))
	if err != nil {
		return false
	}
	own, err := os.Stat(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		sibling := filepath.Join(dir, "..", entry.Name())
		other, err := bundle.LoadNote(sibling)
		if err != nil || other.Dir != note.Dir || other.SandboxID != note.SandboxID {
			continue
		}
		if info, err := os.Stat(sibling); err == nil && !os.SameFile(info, own) {
			return true
		}
	}
	return false
}
