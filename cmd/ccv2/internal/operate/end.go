package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func shutdownCommand(t *tool) *cli.Command {
	var grace time.Duration
	return &cli.Command{
		Name: "shutdown", Usage: "let the containers of a sandbox end, and then its VM", ArgsUsage: "ID|POD",
		Description: "Containers get SIGTERM, the pod's own last. What has not ended after the grace period ends with the VM. " +
			"A kubelet starts the containers of a pod again, in a new sandbox, by its restart policy.",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "grace", Usage: "how long the containers have", Value: 30 * time.Second, Destination: &grace}},
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.One(c)
			if err != nil {
				return err
			}
			if grace <= 0 {
				return sandboxes.UsageError("--grace %s: want more than 0", grace)
			}
			const release = 30 * time.Second
			return t.end(ctx, r, &debugapi.EndRequest{Graceful: true, Timeout: grace.Nanoseconds(), By: operator.Caller()}, grace+release)
		},
	}
}

func killCommand(t *tool) *cli.Command {
	var force bool
	return &cli.Command{
		Name: "kill", Usage: "end the VM of a sandbox at once", ArgsUsage: "ID|POD",
		Description: "Containerd learns that all its processes have ended, with status 255. With --force the shim is not asked: its processes get SIGKILL, " +
			"from its record, and containerd cleans up after it.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "end the shim and all its processes, for a shim that does not answer", Destination: &force}},
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.One(c)
			if err != nil {
				return err
			}
			if force {
				return t.killAll(ctx, r)
			}
			const vmm = 15 * time.Second // what the shim waits for the end of QEMU, and some more
			return t.end(ctx, r, &debugapi.EndRequest{By: operator.Caller()}, vmm)
		},
	}
}

// end asks the shim, and waits until the VM's processes are gone. The shim closes the
// connection when it has released all, which may be before its answer.
func (t *tool) end(ctx context.Context, r sandboxes.Record, request *debugapi.EndRequest, limit time.Duration) error {
	if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil { // one that hangs is found soon
		return sandboxes.Explain(r, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return sandboxes.Explain(r, err)
	}
	defer c.Close()
	request.Activity = sandboxes.Activity()
	if _, err := c.End(ctx, request); err != nil && !errors.Is(err, ttrpc.ErrClosed) && !errors.Is(err, io.EOF) {
		return sandboxes.Explain(r, err)
	}
	return t.awaitEnd(ctx, r)
}

// awaitEnd waits for the end of a sandbox's VM.
func (t *tool) awaitEnd(ctx context.Context, r sandboxes.Record) error {
	for _, p := range r.Saved.Processes {
		if err := p.Wait(ctx); err != nil {
			return fmt.Errorf("sandbox %s: %w", r.Name(), err)
		}
	}
	_, err := fmt.Fprintf(t.Stdout, "the vm of sandbox %s has ended\n", r.Name())
	return err
}

// killAll ends the processes of a sandbox by its record, the shim first, so that it starts
// nothing any more.
func (t *tool) killAll(ctx context.Context, r sandboxes.Record) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var errs []error
	for _, p := range append([]store.Process{r.Saved.Shim}, r.Saved.Processes...) {
		errs = append(errs, p.Kill(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sandbox %s: %w", r.Name(), err)
	}
	return t.awaitEnd(ctx, r)
}

func logLevelCommand(t *tool) *cli.Command {
	return &cli.Command{
		Name: "log-level", Usage: "say or change how much a shim logs", ArgsUsage: "ID|POD [trace|debug|info|warn|error]",
		Description: "Of a shim that runs; debug has each call of containerd with its activity. Those that are started later have the level of containerd.",
		Action: func(ctx context.Context, c *cli.Command) error {
			if n := c.Args().Len(); n != 1 && n != 2 {
				return sandboxes.UsageError("want the id of one sandbox, or the name of its pod: ccv2 %s %s", c.Name, c.ArgsUsage)
			}
			r, err := sandboxes.Find(t.StateDir, c.Args().First())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, t.Limit)
			defer cancel()
			conn, err := sandboxes.Connect(ctx, r)
			if err != nil {
				return sandboxes.Explain(r, err)
			}
			defer conn.Close()
			answer, err := conn.LogLevel(ctx, &debugapi.LogLevelRequest{Level: c.Args().Get(1), By: operator.Caller(), Activity: sandboxes.Activity()})
			if err != nil {
				return sandboxes.Explain(r, err)
			}
			if t.JSON {
				return operator.PrintJSON(t.Stdout, map[string]string{"before": operator.Line(answer.GetBefore())})
			}
			_, err = fmt.Fprintln(t.Stdout, operator.Line(answer.GetBefore()))
			return err
		},
	}
}
