package main

import (
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// machine makes a VM the machine of a sandbox: the two packages do not know each
// other, and this is the one method whose result differs.
type machine struct{ *podvm.Machine }

var _ sandbox.Machine = machine{}

// Files implements [sandbox.Host].
func (m machine) Files(container string) (sandbox.Files, error) {
	view, err := m.Machine.Files(container)
	if err != nil {
		return nil, err
	}
	return view, nil
}
