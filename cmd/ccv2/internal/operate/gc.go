package operate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/reclaim"
)

// leftover is a sandbox whose shim is dead.
type leftover struct {
	Namespace string              `json:"namespace"`
	ID        string              `json:"id"`
	Dir       string              `json:"dir"`
	Created   time.Time           `json:"created"`
	Processes []sandboxes.Process `json:"processes"` // that still run
	Cgroup    string              `json:"cgroup,omitempty"`
	NetNS     string              `json:"netns,omitempty"`
	Removed   bool                `json:"removed"`
	Error     string              `json:"error,omitempty"`
}

func gcCommand(t *tool) *cli.Command {
	var remove bool
	return &cli.Command{
		Name: "gc", Usage: "find what dead shims have left, and spare VMs that nobody can have any more, and remove it",
		Description: "Without --remove it only says what there is. Containerd cleans up after a dead shim by itself; what is here has been left by one that was not " +
			"running then, or has lost its records. Sandboxes whose shim lives are never touched, nor is one whose record cannot be read.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "remove", Usage: "end the processes, and remove control groups, taps, mounts and directories", Destination: &remove}},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := operator.None(c); err != nil {
				return err
			}
			all, err := sandboxes.All(t.StateDir)
			if err != nil {
				return err
			}
			found := []leftover{}
			var errs []error
			for _, r := range all {
				switch {
				case r.Err != nil:
					errs = append(errs, fmt.Errorf("%s: its record cannot be read, so that nothing is known of its shim: %w; remove it by hand", r.Dir.Path(), r.Err))
				case !r.Saved.Shim.Alive():
					l := leftoverOf(r)
					if remove {
						errs = append(errs, l.remove(ctx, r))
					}
					found = append(found, l)
				}
			}
			spares, err := t.deadSpares(ctx, remove)
			found, errs = append(found, spares...), append(errs, err)
			return errors.Join(t.printLeftovers(found, remove), errors.Join(errs...))
		},
	}
}

func leftoverOf(r sandboxes.Record) leftover {
	s := r.Saved
	l := leftover{Namespace: s.Namespace, ID: s.ID, Dir: r.Dir.Path(), Created: s.Created, Cgroup: s.Cgroup, NetNS: s.NetNS}
	for _, p := range s.Processes {
		if p.Alive() {
			l.Processes = append(l.Processes, sandboxes.Look(p.Name, p.PID))
		}
	}
	return l
}

// deadSpares are the spare VMs whose maker, taker or VMM is dead, which are ended if they are to be.
// They are in no namespace.
func (t *tool) deadSpares(ctx context.Context, end bool) (found []leftover, err error) {
	if t.DeadSpares == nil {
		return nil, nil
	}
	dead, err := t.DeadSpares(ctx, t.StateDir, end)
	if errors.Is(err, errdefs.ErrUnavailable) { // who makes some ends them
		return nil, nil
	}
	for _, vm := range dead {
		l := leftover{Namespace: "-", ID: "spare", Dir: vm.Dir, Created: vm.Made, Removed: end && err == nil}
		if vm.PID > 0 {
			l.Processes = append(l.Processes, sandboxes.Look("qemu", vm.PID))
		}
		if err != nil {
			l.Error = operator.Line(err.Error())
		}
		found = append(found, l)
	}
	return found, err
}

// remove releases what the sandbox had.
func (l *leftover) remove(ctx context.Context, r sandboxes.Record) error {
	ctx, cancel := context.WithTimeout(ctx, reclaim.Timeout)
	defer cancel()
	// Others took their time: a sandbox of that id may have been started meanwhile.
	now, err := r.Dir.Load()
	if err == nil && now.Shim != r.Saved.Shim {
		return fmt.Errorf("clean up after the dead shim of sandbox %s: another shim has cleaned up, and runs it now", r.Name())
	}
	err = reclaim.Sandbox(ctx, r.Dir)
	l.Removed = err == nil
	if err != nil {
		l.Error = operator.Line(err.Error())
		return fmt.Errorf("clean up after the dead shim of sandbox %s: %w", r.Name(), err)
	}
	return nil
}

func (t *tool) printLeftovers(found []leftover, removed bool) error {
	if t.JSON {
		return operator.PrintJSON(t.Stdout, found)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintln(t.Stdout, "dead shims have left nothing")
		return err
	}
	out := operator.NewTable(t.Stdout, "NAMESPACE", "ID", "AGE", "PROCESSES", "REMOVED", "DIRECTORY")
	for _, l := range found {
		out.Row(l.Namespace, operator.Short(l.ID), operator.Span(time.Since(l.Created)), fmt.Sprint(len(l.Processes)), strconv.FormatBool(l.Removed), l.Dir)
	}
	if err := out.Flush(); err != nil || removed {
		return err
	}
	_, err := fmt.Fprintln(t.Stdout, "nothing was removed; ccv2 gc --remove does")
	return err
}
