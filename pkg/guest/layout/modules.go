package layout

import (
	"fmt"
	"strings"
)

// Phase says when the agent loads a module.
type Phase string

// Phases. Boot time matters, so only what is needed to talk to the host is
// loaded before READY.
const (
	PhaseBoot  Phase = "boot"  // before READY
	PhaseMMIO  Phase = "mmio"  // before READY on a machine without PCI
	PhaseShare Phase = "share" // after READY, before the share is mounted
	PhaseNet   Phase = "net"   // when the first interface is announced
	PhaseLate  Phase = "late"  // when the first container runs, in the background
	PhasePlug  Phase = "plug"  // before the guest is saved, or gets memory
	// PhaseDemand is when the kernel asks for them. They are in the module table
	// only, as all modules are.
	PhaseDemand Phase = "demand"
)

// AppendModule appends a line of the module list, "phase path", to b. The lines
// are in load order.
func AppendModule(b []byte, phase Phase, path string) []byte {
	return fmt.Appendf(b, "%s %s\n", phase, path)
}

// ModulesOf returns the paths of one phase of a module list in load order. An
// image without a list has a kernel with everything built in.
func ModulesOf(list string, phase Phase) []string {
	var paths []string
	for line := range strings.SplitSeq(list, "\n") {
		if p, path, ok := strings.Cut(line, " "); ok && p == string(phase) {
			paths = append(paths, path)
		}
	}
	return paths
}
