package watch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/ttrpc"
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/trace"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// tracer prints messages, and writes them to a file.
type tracer struct {
	*tool

	filter trace.Filter
	file   *trace.Writer // nil for none
	limit  int           // of messages; 0 for none
	seen   int
}

// errEnough ends a trace of so many messages.
var errEnough = errors.New("enough")

// show shows a message, when it is wanted.
func (t *tracer) show(m wiretap.Message) error {
	line := trace.Line(m)
	if !t.filter.Wants(m, line) {
		return nil
	}
	var err error
	switch {
	case t.file != nil:
		err = t.file.Write(m)
	case t.JSON:
		err = json.NewEncoder(t.Stdout).Encode(trace.EntryOf(m)) // a line each
	default:
		_, err = fmt.Fprintln(t.Stdout, line)
	}
	if t.seen++; err == nil && t.seen == t.limit {
		err = errEnough
	}
	return err
}

// filterFlags are those of both commands.
func (t *tracer) filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "layer", Usage: "only messages of a `LAYER`: ctl, tty or frame; may be repeated", Destination: &t.filter.Layers},
		&cli.StringFlag{Name: "grep", Usage: "only messages whose line has this `TEXT`", Destination: &t.filter.Text},
		&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after so many messages", Destination: &t.limit},
	}
}

// check refuses layers that there are not.
func (t *tracer) check() error {
	for _, l := range t.filter.Layers {
		if !slices.Contains([]string{wiretap.Ctl.String(), wiretap.TTY.String(), wiretap.Frame.String()}, l) {
			return sandboxes.UsageError("--layer %q: want ctl, tty or frame", l)
		}
	}
	return nil
}

func traceCommand(t *tool) *cli.Command {
	w := &tracer{tool: t}
	var path string
	var secrets bool
	return &cli.Command{
		Name: "trace", Usage: "print what passes between the shim and the guest, live", ArgsUsage: "ID|POD",
		Description: "Messages of the guest's two ports (ctl, tty) and frames of the proxy, decoded, until interrupted or the sandbox ends. What processes read and write, arguments, environments, " +
			"contents of files, values of annotations, tokens, options of mounts and texts of errors and logs are left out, in a file as well, unless --secrets asks for them. " +
			"Nobody waits for a trace: one that is slow loses messages, and says how many.",
		Flags: append(w.filterFlags(),
			&cli.StringFlag{Name: "write", Aliases: []string{"w"}, Usage: "write a pcap `FILE` in place of lines; ccv2 decode prints it", Destination: &path, TakesFile: true},
			&cli.BoolFlag{Name: "secrets", Usage: "messages as they are", Destination: &secrets},
		),
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			r, err := t.One(c)
			if err == nil {
				err = w.check()
			}
			if err != nil {
				return err
			}
			if path != "" {
				f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if openErr != nil {
					return fmt.Errorf("write the trace: %w", openErr)
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				if w.file, err = trace.NewWriter(f); err != nil {
					return fmt.Errorf("write the trace: %w", err)
				}
			}
			return sandboxes.Explain(r, w.watch(ctx, r, &debugapi.TraceRequest{Secrets: secrets, Layers: w.filter.Layers, Activity: sandboxes.Activity()}))
		},
	}
}

// watch shows what passes until there is no more, or the operator has seen enough.
func (t *tracer) watch(ctx context.Context, r sandboxes.Record, request *debugapi.TraceRequest) error {
	if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil { // one that hangs is found soon
		return err
	}
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close()
	messages, err := c.Trace(c.Stream(ctx), request)
	for err == nil {
		var m *debugapi.Message
		if m, err = messages.Recv(); err != nil {
			break
		}
		if m.GetSize() > 0 { // not the one that only begins, or says what was lost
			err = t.show(wiretap.Message{
				Time: m.GetTime(), Layer: wiretap.Layer(m.GetLayer()), ToHost: m.GetToHost(), Conn: m.GetConnection(), Size: int(m.GetSize()), Raw: m.GetRaw(),
			})
		}
		if m.GetLost() > 0 {
			fmt.Fprintf(t.Stderr, "… %d messages came too fast\n", m.GetLost())
		}
	}
	if errors.Is(err, errEnough) || errors.Is(err, io.EOF) || errors.Is(err, ttrpc.ErrClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

func decodeCommand(t *tool) *cli.Command {
	w := &tracer{tool: t}
	return &cli.Command{
		Name: "decode", Usage: "print a file that ccv2 trace has written", ArgsUsage: "FILE",
		Flags: w.filterFlags(),
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return sandboxes.UsageError("want a file: ccv2 %s %s", c.Name, c.ArgsUsage)
			}
			if err := w.check(); err != nil {
				return err
			}
			path := c.Args().First()
			f, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("read the trace: %w", err)
			}
			defer f.Close()
			return w.decode(path, bufio.NewReader(f))
		},
	}
}

func (t *tracer) decode(path string, from io.Reader) error {
	r, err := trace.NewReader(from)
	for err == nil {
		var m wiretap.Message
		if m, err = r.Read(); err == nil {
			err = t.show(m)
		}
	}
	if errors.Is(err, errEnough) || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read the trace: %s: %w", path, err)
}
