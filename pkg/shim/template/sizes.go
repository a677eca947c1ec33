package template

import "github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"

// Sizes are those that templates have: there are few of them, however many pods have. A VM
// that is larger goes on from the template of a smaller one, and gets the rest.
type Sizes struct {
	// Templates are the sizes of templates.
	Templates []hypervisor.Size
	// Max is how large a VM from one can become. The templates of larger ones have as much.
	Max hypervisor.Size
}

// template is the spec of what the template for the VM is made of.
func (vm VM) template() hypervisor.Spec {
	spec := vm.Spec
	most, best := vm.Sizes.Max, hypervisor.Size{}
	for _, s := range vm.Sizes.Templates {
		if spec.CPUs > most.CPUs {
			s.CPUs = spec.CPUs
		}
		if spec.MemoryMiB > most.MemoryMiB {
			s.MemoryMiB = spec.MemoryMiB
		}
		fits := s.CPUs <= spec.CPUs && s.MemoryMiB <= spec.MemoryMiB
		if fits && (s.MemoryMiB > best.MemoryMiB || s.MemoryMiB == best.MemoryMiB && s.CPUs > best.CPUs) {
			best = s
		}
	}
	if best != (hypervisor.Size{}) { // else it is smaller than all of them
		spec.Size = best
		spec.Max = hypervisor.Size{CPUs: max(most.CPUs, best.CPUs), MemoryMiB: max(most.MemoryMiB, best.MemoryMiB)}
	}
	return spec
}
