package debug

import (
	"slices"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// line is an error, of which a guest may have written some parts, as one line.
func line(err error) string { return printable.Line(err.Error(), printable.MaxReport) }

// phase is a step of the start.
func phase(p podvm.Phase) debugapi.Phase {
	d := debugapi.Phase{Name: p.Name, Begin: p.Begin}
	if p.Err != nil {
		d.Error = line(p.Err)
	}
	end := p.End
	if d.Running = end.IsZero(); d.Running {
		end = time.Now()
	}
	d.Nanoseconds = end.Sub(p.Begin).Nanoseconds()
	return d
}

// containers are those of the sandbox, in the order of their ids.
func containers(s Sandbox) []debugapi.Container {
	all := []debugapi.Container{}
	for _, c := range s.List() {
		d := debugapi.Container{ID: c.ID, Name: nameOf(c.Bundle), State: c.State().String(), PID: c.PID(), Bundle: c.Bundle}
		for _, p := range c.List() {
			if p.ID == "" {
				d.Exit = exit(p)
				continue
			}
			d.Execs = append(d.Execs, debugapi.Process{ID: p.ID, State: p.State().String(), PID: p.PID(), Exit: exit(p)})
		}
		slices.SortFunc(d.Execs, func(a, b debugapi.Process) int { return strings.Compare(a.ID, b.ID) })
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b debugapi.Container) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// nameOf is what the pod calls the container of a bundle.
func nameOf(dir string) string {
	b, err := bundle.Load(dir)
	if err != nil {
		return "" // it is just being removed
	}
	return printable.Line(b.ContainerName(), printable.MaxName)
}

// exit is how a process ended, nil when it has not.
func exit(p *sandbox.Process) *debugapi.Exit {
	e := p.Exit()
	if e.At.IsZero() {
		return nil
	}
	return &debugapi.Exit{Status: e.Status, At: e.At}
}
