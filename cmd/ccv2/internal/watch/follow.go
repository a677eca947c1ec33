package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// receiver is a stream of entries.
type receiver interface {
	Recv() (*debugapi.Entry, error)
}

// entryLog is a log of a shim.
type entryLog struct {
	open   func(context.Context, *sandboxes.Connection, *debugapi.LogRequest) (receiver, error)
	format func(*debugapi.Entry) string
}

// logs are those that there are, by the names of their commands.
var logs = map[string]entryLog{
	"console": {
		open: func(ctx context.Context, c *sandboxes.Connection, r *debugapi.LogRequest) (receiver, error) {
			return c.Console(ctx, r)
		},
		format: func(e *debugapi.Entry) string {
			return operator.Stamp(time.Unix(0, e.GetTime())) + "  " + operator.Line(e.GetText())
		},
	},
	"events": {
		open: func(ctx context.Context, c *sandboxes.Connection, r *debugapi.LogRequest) (receiver, error) {
			return c.Events(ctx, r)
		},
		format: func(e *debugapi.Entry) string {
			who := operator.Short(e.GetContainer())
			if e.GetProcess() != "" {
				who += "/" + e.GetProcess()
			}
			return fmt.Sprintf("%s  %-11s %-14s %s", operator.Stamp(time.Unix(0, e.GetTime())), e.GetKind(), operator.Line(who), operator.Line(e.GetText()))
		},
	},
}

func consoleCommand(t *tool) *cli.Command {
	var attach bool
	c := t.logCommand("console", "print what the guest has written to its console",
		"The shim keeps the last 1024 lines, with their times. Errors and panics of the guest's kernel are there in any case; all its messages are "+
			"with console = true in [guest]. With --attach this terminal is the console until Ctrl-]; the pod must have started with console_input = true in [guest], and /bin/sh of its image answers.")
	c.Flags = append(c.Flags, &cli.BoolFlag{Name: "attach", Aliases: []string{"a"}, Usage: "type on the console, where the configuration lets root; Ctrl-] detaches", Destination: &attach})
	history := c.Action
	c.Action = func(ctx context.Context, c *cli.Command) error {
		if !attach {
			return history(ctx, c)
		}
		r, err := t.One(c)
		if err != nil {
			return err
		}
		return sandboxes.Explain(r, t.attach(ctx, r))
	}
	return c
}

func eventsCommand(t *tool) *cli.Command {
	return t.logCommand("events", "print what has happened in a sandbox",
		"The shim keeps the last 256 events. Those of a sandbox whose shim is dead, and of the last 64 that have ended, are read from the journal that they have left.")
}

// Logs are the names of the logs of a shim.
func Logs() []string { return slices.Sorted(maps.Keys(logs)) }

// Print prints what there is of a log of a shim.
func Print(ctx context.Context, out io.Writer, r sandboxes.Record, name string, limit time.Duration) error {
	t := &tool{&operator.Operator{Options: operator.Options{Stdout: out, Stderr: out}, Limit: limit}}
	return t.follow(ctx, r, &debugapi.LogRequest{Activity: sandboxes.Activity()}, logs[name].open, logs[name].format)
}

// logCommand is a command that prints entries.
func (t *tool) logCommand(name, usage, description string) *cli.Command {
	var since string
	var follow bool
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "ID|POD", Description: description,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "only what is newer than a `TIME`, such as 2026-01-02T15:04:05Z, or than a duration ago, such as 10m", Destination: &since},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until interrupted or the sandbox ends", Destination: &follow},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			from, err := instant(since, time.Now())
			if err != nil {
				return err
			}
			r, err := t.One(c)
			if name == "events" && (sandboxes.StatusOf(err) == sandboxes.StatusNotFound || err == nil && !r.Saved.Shim.Alive()) {
				if pastErr := t.past(c.Args().First(), from); !errors.Is(pastErr, fs.ErrNotExist) { // a shim of an older release leaves none
					return pastErr
				}
			}
			if err != nil {
				return err
			}
			request := &debugapi.LogRequest{Follow: follow, Activity: sandboxes.Activity()}
			if !from.IsZero() {
				request.Since = from.UnixNano()
			}
			return sandboxes.Explain(r, t.follow(ctx, r, request, logs[name].open, logs[name].format))
		},
	}
}

// past prints the events of a sandbox whose shim is gone, and how it has ended.
func (t *tool) past(name string, from time.Time) error {
	j, err := sandboxes.FindJournal(t.StateDir, name)
	if err != nil {
		return err
	}
	for _, e := range j.Events {
		if e.Time < from.UnixNano() && !from.IsZero() {
			continue
		}
		entry := &debugapi.Entry{Time: e.Time, Kind: e.Kind, Container: e.Container, Process: e.Process, Status: e.Status, Text: e.Text}
		if err := t.printEntry(entry, logs["events"].format); err != nil {
			return err
		}
	}
	switch c := j.Counters; {
	case c == nil:
		fmt.Fprintf(t.Stderr, "ccv2: the shim of sandbox %s has died; this is what it has left\n", operator.Line(j.Sandbox.ID))
	case c.Failure != "":
		fmt.Fprintf(t.Stderr, "ccv2: sandbox %s has ended: %s\n", operator.Line(j.Sandbox.ID), operator.Line(c.Failure))
	default:
		fmt.Fprintf(t.Stderr, "ccv2: sandbox %s has ended\n", operator.Line(j.Sandbox.ID))
	}
	return nil
}

// follow prints entries until there are no more.
func (t *tool) follow(
	ctx context.Context, r sandboxes.Record, request *debugapi.LogRequest,
	open func(context.Context, *sandboxes.Connection, *debugapi.LogRequest) (receiver, error), format func(*debugapi.Entry) string,
) error {
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A shim that hangs takes the connection, and does not answer. With --follow nothing may
	// have happened yet, so that one is asked something else first.
	if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil {
		return err
	}
	silent := time.AfterFunc(t.Limit, func() { cancel(context.DeadlineExceeded) })
	if request.GetFollow() {
		silent.Stop()
	}
	entries, err := open(c.Stream(ctx), c, request)
	if err != nil {
		return err
	}
	for {
		e, err := entries.Recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && request.GetFollow() && (errors.Is(err, ttrpc.ErrClosed) || ctx.Err() != nil):
			return nil // all was sent, the sandbox has ended, or the operator has seen enough
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		silent.Reset(t.Limit)
		if request.GetFollow() {
			silent.Stop()
		}
		if err := t.printEntry(e, format); err != nil {
			return err
		}
	}
}

func (t *tool) printEntry(e *debugapi.Entry, format func(*debugapi.Entry) string) error {
	if t.JSON {
		return json.NewEncoder(t.Stdout).Encode(map[string]any{ // a line each
			"time": time.Unix(0, e.GetTime()), "kind": e.GetKind(), "container": e.GetContainer(), "process": e.GetProcess(),
			"status": e.GetStatus(), "text": e.GetText(), "lost": e.GetLost(),
		})
	}
	if e.GetLost() > 0 {
		fmt.Fprintf(t.Stdout, "… %d older ones are forgotten\n", e.GetLost())
	}
	_, err := fmt.Fprintln(t.Stdout, format(e))
	return err
}

// instant is the time that an argument means; zero for none.
func instant(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, sandboxes.UsageError("--since %q: want a time such as %s, or a duration such as 10m", s, now.UTC().Format(time.RFC3339))
}
