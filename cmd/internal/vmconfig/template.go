package vmconfig

import (
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// TemplateStore is the store that the configuration names.
func TemplateStore(c config.Config) *template.Store {
	return &template.Store{Dir: c.Template.Dir, MaxBytes: int64(c.Template.MaxMiB) << 20}
}

// TemplateVM is what a template for the VMs of a configuration is made of. version is
// ccv2's.
func TemplateVM(vm podvm.Config, driver template.Driver, version string) template.VM {
	return template.VM{Driver: driver, Version: version, Spec: vm.Spec, Dialect: vm.Dialect}
}
