package operator

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/config"
)

// Options are what the commands work with.
type Options struct {
	Version        string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Others are commands of the tool that are none of this package's, for completion.
	Others []Other
	// DeadSpares, when set, finds the spare VMs that no sandbox can have any more, and ends them if
	// they are to be: it is errdefs.ErrUnavailable while others do that.
	DeadSpares func(ctx context.Context, stateDir string, end bool) ([]Spare, error)
}

// Spare is a spare VM.
type Spare struct {
	Dir  string
	Made time.Time // zero where nobody knows
	PID  int       // 0 where its VMM has ended
}

// Other is a command that is elsewhere.
type Other struct{ Name, Usage string }

// Operator is what the commands have in common.
type Operator struct {
	Options

	StateDir string // empty: what the configuration says
	Config   string
	Limit    time.Duration
	JSON     bool
}

// CommonFlags are those of every command.
func (t *Operator) CommonFlags() []cli.Flag {
	path := os.Getenv(config.EnvPath)
	if path == "" {
		path = config.DefaultPath
	}
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "configuration `FILE`, which says where sandboxes are", Value: path, Destination: &t.Config},
		&cli.StringFlag{Name: "state-dir", Usage: "`DIRECTORY` of the sandboxes (default: what the configuration says)", Destination: &t.StateDir},
		&cli.DurationFlag{Name: "timeout", Usage: "how long a shim may take to answer", Value: 2 * time.Second, Destination: &t.Limit},
		&cli.BoolFlag{Name: "json", Usage: "print JSON", Destination: &t.JSON},
	}
}

// Before checks what all commands need.
func (t *Operator) Before(ctx context.Context, _ *cli.Command) (context.Context, error) {
	if err := sandboxes.NeedRoot(os.Geteuid()); err != nil {
		return ctx, err
	}
	if t.Limit <= 0 {
		return ctx, sandboxes.UsageError("--timeout %s: want more than 0", t.Limit)
	}
	if t.StateDir != "" {
		return ctx, nil
	}
	c, err := config.Load(t.Config, nil)
	t.StateDir = c.StateDir
	if t.StateDir == "" {
		return ctx, fmt.Errorf("find out where sandboxes are: %w; --state-dir says it without a configuration", err)
	}
	if err != nil { // it is for pods to come; those that run have another
		fmt.Fprintf(t.Stderr, "ccv2: the configuration cannot be used for new pods: %v\n", err)
	}
	return ctx, nil
}

// One is the sandbox that the only argument names.
func (t *Operator) One(c *cli.Command) (sandboxes.Record, error) {
	if c.Args().Len() != 1 {
		return sandboxes.Record{}, sandboxes.UsageError("want the id of one sandbox, or the name of its pod: ccv2 %s %s", c.Name, c.ArgsUsage)
	}
	return sandboxes.Find(t.StateDir, c.Args().First())
}

// Complete prints what can be named: the ids of sandboxes and the names of pods, or flags.
func (t *Operator) Complete(ctx context.Context, c *cli.Command) {
	if last := c.Args().Slice(); len(last) > 0 && strings.HasPrefix(last[len(last)-1], "-") {
		cli.DefaultCompleteWithFlags(ctx, c)
		return
	}
	all, _ := sandboxes.All(t.StateDir) // nothing is completed where there is nothing
	for _, r := range all {
		if about := r.Saved.About; about.Pod != "" {
			fmt.Fprintf(t.Stdout, "%s/%s\n", Line(about.PodNamespace), Line(about.Pod))
		}
		fmt.Fprintln(t.Stdout, r.Saved.ID)
	}
}

// None refuses arguments.
func None(c *cli.Command) error {
	if c.Args().Present() {
		return sandboxes.UsageError("unexpected argument %q", c.Args().First())
	}
	return nil
}

// Caller says who asks.
func Caller() string {
	by := fmt.Sprintf("uid %d, pid %d", os.Getuid(), os.Getpid())
	if user := os.Getenv("SUDO_USER"); user != "" {
		by = user + ", " + by
	}
	return by
}
