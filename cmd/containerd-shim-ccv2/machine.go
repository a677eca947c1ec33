package main

import (
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// machine makes a VM the machine of a sandbox: the two packages do not know each
// other, and these are the methods whose results differ.
type machine struct{ *podvm.Machine }

var _ sandbox.Machine = machine{}

// Files implements [sandbox.Host].
func (m machine) Files(container string) (exposure.View, error) {
	view, err := m.Machine.Files(container)
	if err != nil {
		return nil, err
	}
	return view, nil
}

// Placeholder implements [sandbox.Host].
func (m machine) Placeholder(c placeholder.Container) (sandbox.Placeholder, error) {
	p, err := m.Machine.Placeholder(c)
	if err != nil {
		return nil, err
	}
	return p, nil
}
