package operate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

func psCommand(t *tool) *cli.Command {
	var ended bool
	return &cli.Command{
		Name: "ps", Usage: "list the sandboxes of this host",
		Description: "A sandbox whose shim does not answer in time is hung, one whose shim is gone is dead. Memory is the proportional set size of " +
			"the shim, QEMU and virtiofsd; CPU is the time that they have used. With --all come the last sandboxes that have ended, whose events can be read.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also sandboxes that have ended", Destination: &ended}},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := operator.None(c); err != nil {
				return err
			}
			all, err := sandboxes.All(t.StateDir)
			if err != nil {
				return err
			}
			views := viewAll(ctx, all, t.Limit)
			if ended {
				past, err := viewEnded(t.StateDir)
				if err != nil {
					return err
				}
				views = append(views, past...)
			}
			if t.JSON {
				return operator.PrintJSON(t.Stdout, views)
			}
			return t.printViews(views)
		},
	}
}

// printViews prints the table of ps, and below it what is wrong.
func (t *tool) printViews(views []view) error {
	out := operator.NewTable(t.Stdout, "NAMESPACE", "ID", "POD", "STATE", "AGE", "VM", "MEMORY", "CPU", "SOURCE", "ACCEL", "CONTAINERS")
	for _, v := range views {
		pod := v.Pod
		if pod != "" {
			pod = v.PodNamespace + "/" + pod
		}
		size, age := "", ""
		if v.VM.CPUs > 0 {
			size = fmt.Sprintf("%d×%d MiB", v.VM.CPUs, v.VM.MemoryMiB)
		}
		if !v.Created.IsZero() {
			age = operator.Span(time.Since(v.Created))
		}
		out.Row(v.Namespace, operator.Short(v.ID), pod, v.State, age, size, operator.Mebibytes(v.Memory), operator.Span(time.Duration(v.CPU)), v.VM.Source, v.VM.Accelerator, v.containers())
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, v := range views {
		for _, problem := range v.Problems {
			name := operator.Short(v.ID)
			if name == "" {
				name = v.Dir
			}
			fmt.Fprintf(t.Stdout, "%s: %s\n", name, problem)
		}
	}
	return nil
}

// containers names those of a sandbox that do not run by their states.
func (v view) containers() string {
	var names []string
	for _, c := range v.Containers {
		name := c.Name
		if name == "" {
			if c.ID == v.ID && v.Pod != "" {
				continue // the pause container
			}
			name = operator.Short(c.ID)
		}
		if c.State != "running" {
			name += "(" + c.State + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func infoCommand(t *tool) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "say all that is known of a sandbox", ArgsUsage: "ID|POD",
		Description: "The phases of its start, its containers and devices, the configuration in force, versions, and its record on disk. " +
			"The guest and the VMM are asked as well, for 2 s each.",
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.One(c)
			if err != nil {
				return err
			}
			const asks = 2 // the guest and the VMM, 2 s each
			info, raw, err := sandboxes.AskInfo(ctx, r, true, t.Limit+asks*2*time.Second)
			if err != nil {
				return sandboxes.Explain(r, err)
			}
			if t.JSON {
				var all []sandboxes.Link
				if info.VM != nil {
					all, _ = sandboxes.Links(r.Saved) // of one that has just ended there are none
				}
				return operator.PrintJSON(t.Stdout, map[string]any{"info": raw, "record": r.Saved, "sandbox": viewOne(ctx, r, t.Limit), "interfaces": all})
			}
			return t.printInfo(r, viewOne(ctx, r, t.Limit), info)
		},
	}
}

// printInfo prints what info knows, by subject.
func (t *tool) printInfo(r sandboxes.Record, v view, info debugapi.Info) error {
	p := func(format string, args ...any) { fmt.Fprintf(t.Stdout, format+"\n", args...) }
	p("sandbox     %s in namespace %s, %s", info.ID, info.Namespace, v.State)
	if v.Pod != "" {
		p("pod         %s/%s", v.PodNamespace, v.Pod)
	}
	p("since       %s (%s)", operator.Stamp(v.Created), operator.Span(time.Since(v.Created)))
	p("record      %s/state.json", v.Dir)
	p("shim        pid %d, %s, %d goroutines", info.Shim.PID, info.Shim.Version, info.Shim.Goroutines)
	if vm := info.VM; vm != nil {
		vm.Status = cmp.Or(vm.Status, "which does not answer")
		p("vm          qemu %s, pid %d, %d vCPUs, %d MiB, %s, from a %s, %s", vm.Version, vm.PID, v.VM.CPUs, v.VM.MemoryMiB, v.VM.Accelerator, v.VM.Source, vm.Status)
		p("devices     %s", strings.Join(vm.Devices, ", "))
		for _, d := range vm.Attached {
			p("attached    %s is %s%s", operator.Line(d.ID), operator.Line(d.Path), map[bool]string{true: ", read-only"}[d.ReadOnly])
		}
		all, err := sandboxes.Links(r.Saved)
		if err := printLinks(t.Stdout, all, err); err != nil {
			return err
		}
	}
	switch g := info.Guest; {
	case g == nil:
	case g.Kernel == "":
		p("guest       dialect %s, which does not answer", operator.Line(g.Dialect))
	default:
		p("guest       linux %s, agent %s (%s), dialect %s, memory %s of %s available", operator.Line(g.Kernel), operator.Line(g.AgentVersion), operator.Mebibytes(int64(g.AgentRSS)),
			operator.Line(g.Dialect), operator.Mebibytes(int64(g.MemAvailable)), operator.Mebibytes(int64(g.MemTotal)))
	}
	for _, problem := range append(slices.Clone(v.Problems), sortedErrors(info.Errors)...) {
		p("problem     %s", operator.Line(problem))
	}
	p("\nstart")
	out := operator.NewTable(t.Stdout, "PHASE", "BEGIN", "TOOK", "RESULT")
	for _, ph := range info.Phases {
		result := "done"
		if ph.Running {
			result = "runs"
		}
		if ph.Error != "" {
			result = operator.Line(ph.Error)
		}
		out.Row(ph.Name, operator.Stamp(ph.Begin), operator.Span(time.Duration(ph.Nanoseconds)), result)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	p("\ncontainers")
	out = operator.NewTable(t.Stdout, "ID", "NAME", "STATE", "PID", "EXIT", "BUNDLE")
	for _, c := range info.Containers {
		out.Row(c.ID, operator.Line(c.Name), c.State, fmt.Sprint(c.PID), exitCell(c.Exit), c.Bundle)
		for _, e := range c.Execs {
			out.Row("  exec "+operator.Line(e.ID), "", e.State, fmt.Sprint(e.PID), exitCell(e.Exit), "")
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	p("\nprocesses on the host")
	return t.printProcesses(v.Processes)
}

func (t *tool) printProcesses(all []sandboxes.Process) error {
	out := operator.NewTable(t.Stdout, "PROCESS", "PID", "STATE", "MEMORY", "CPU")
	for _, p := range all {
		state := p.State
		if state == sandboxes.Gone {
			state = "gone"
		}
		out.Row(p.Name, fmt.Sprint(p.PID), state, operator.Mebibytes(p.PSSBytes), operator.Span(time.Duration(p.CPUNanoseconds)))
	}
	return out.Flush()
}

func exitCell(e *debugapi.Exit) string {
	if e == nil {
		return ""
	}
	return fmt.Sprintf("%d at %s", e.Status, operator.Stamp(e.At))
}

func sortedErrors(errs map[string]string) (all []string) {
	for who, why := range errs {
		all = append(all, who+": "+why)
	}
	slices.Sort(all)
	return all
}
