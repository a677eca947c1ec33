package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// part is a part of a dump.
type part struct {
	Name  string `json:"name"`
	Text  string `json:"text"`
	Error string `json:"error,omitempty"` // why it is missing, or not whole
}

func dumpCommand(t *tool) *cli.Command {
	var tasks bool
	return &cli.Command{
		Name: "dump", Usage: "print what helps to find out why a sandbox does not go on", ArgsUsage: "ID|POD",
		Description: "The stacks of the shim and of the guest's agent, and the state of QEMU. Nothing is stopped; what does not answer is said. " +
			"With --tasks the tasks of the guest's kernel as well, with their stacks (sysrq t), which takes an emulated guest some seconds.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "tasks", Usage: "also the tasks of the guest's kernel", Destination: &tasks}},
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.One(c)
			if err != nil {
				return err
			}
			parts, err := t.getDump(ctx, r, tasks)
			if t.JSON {
				return errors.Join(operator.PrintJSON(t.Stdout, parts), sandboxes.Explain(r, err))
			}
			for _, p := range parts {
				fmt.Fprintf(t.Stdout, "==== %s\n%s\n", p.Name, p.Text)
				if p.Error != "" {
					fmt.Fprintf(t.Stdout, "(%s)\n", p.Error)
				}
			}
			return sandboxes.Explain(r, err)
		},
	}
}

// partLimit is how long one part may take: what the shim allows it, and some more.
const partLimit = 15 * time.Second

// getDump gets a dump. With an error it is what came before that.
func (t *tool) getDump(ctx context.Context, r sandboxes.Record, tasks bool) ([]part, error) {
	if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil { // one that hangs is found soon
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(partLimit, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Dump(c.Stream(ctx), &debugapi.DumpRequest{Tasks: tasks, Activity: sandboxes.Activity()})
	if err != nil {
		return nil, err
	}
	var parts []part
	for {
		p, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return parts, nil
		case err != nil && ctx.Err() != nil:
			return parts, context.Cause(ctx)
		case err != nil:
			return parts, err
		}
		late.Reset(partLimit)
		i := slices.IndexFunc(parts, func(have part) bool { return have.Name == p.GetName() })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{Name: operator.Line(p.GetName())})
		}
		parts[i].Text += printable.Text(string(p.GetText()))
		parts[i].Error = operator.Line(p.GetError())
	}
}
