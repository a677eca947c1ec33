package validate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// rule is about one field of the specification.
type rule struct {
	field string // its path, as docs/oci.md has it
	// asked is what the specification has there that the rule is about, "" for nothing.
	asked func(s *specs.Spec) string
	why   string // and what to do instead
}

// Container returns errdefs.ErrInvalidArgument for a specification that runc refuses
// as well, errdefs.ErrNotImplemented for one that a VM cannot keep to. What is left out
// because the VM takes its place is logged.
func Container(ctx context.Context, id string, b *bundle.Bundle) error {
	if err := b.CheckRunnable(); err != nil {
		return err
	}
	if err := check(b.Spec, func(rule) bool { return true }); err != nil {
		return err
	}
	var left []string
	for _, r := range replaced {
		if what := r.asked(b.Spec); what != "" {
			left = append(left, r.field+" "+what)
		}
	}
	if len(left) > 0 {
		log.G(ctx).WithField("container", id).WithField("fields", strings.Join(left, ", ")).Info("left out of the specification: the VM takes the place of what they are for")
	}
	return nil
}

// Process does the same for an exec process.
func Process(p *specs.Process) error {
	return check(&specs.Spec{Process: p, Linux: new(specs.Linux)}, func(r rule) bool { return strings.HasPrefix(r.field, "process.") })
}

// Resources decodes limits that a container is to have from now on, LinuxResources of
// the specification as JSON, and does the same for them.
func Resources(encoded []byte) (*specs.LinuxResources, error) {
	r := new(specs.LinuxResources)
	if err := json.Unmarshal(encoded, r); err != nil {
		return nil, fmt.Errorf("decode resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	err := check(&specs.Spec{Linux: &specs.Linux{Resources: r}}, func(r rule) bool { return strings.HasPrefix(r.field, "linux.resources.") })
	return r, err
}

// check applies the rules that are about something.
func check(s *specs.Spec, about func(rule) bool) error {
	for _, table := range []struct {
		rules []rule
		class error
	}{{invalid, errdefs.ErrInvalidArgument}, {invalidMounts, errdefs.ErrInvalidArgument}, {refused, errdefs.ErrNotImplemented}} {
		for _, r := range table.rules {
			if !about(r) {
				continue
			}
			if what := r.asked(s); what != "" {
				return fmt.Errorf("specification: %s %s: %s: %w", r.field, what, r.why, table.class)
			}
		}
	}
	return nil
}

// is what a rule says of a field that is there.
func is(there bool) string {
	if there {
		return "is set"
	}
	return ""
}

// quoted is a text that is there.
func quoted(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%q", text)
}

// first is the first of all that a rule is about.
func first(all []string, about func(string) bool) string {
	if i := slices.IndexFunc(all, about); i >= 0 {
		return fmt.Sprintf("%q", all[i])
	}
	return ""
}

// The parts of the resources, which are never nil.

func memory(s *specs.Spec) specs.LinuxMemory {
	return valueOf(resources(s).Memory)
}
func cpu(s *specs.Spec) specs.LinuxCPU         { return valueOf(resources(s).CPU) }
func blockIO(s *specs.Spec) specs.LinuxBlockIO { return valueOf(resources(s).BlockIO) }
func seccomp(s *specs.Spec) specs.LinuxSeccomp { return valueOf(s.Linux.Seccomp) }
func resources(s *specs.Spec) specs.LinuxResources {
	return valueOf(s.Linux.Resources)
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
