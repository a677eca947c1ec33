package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
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
}

// Other is a command that is elsewhere.
type Other struct{ Name, Usage string }

// Run runs a command; args begin with its name. It returns the exit status.
func Run(o Options, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := Tool(o)
	err := root.Run(ctx, append([]string{"ccv2"}, args...))
	if err == nil {
		return 0
	}
	if coder, ok := errors.AsType[cli.ExitCoder](err); ok && coder.Error() == "" {
		return coder.ExitCode() // of a program in a VM, which has said what it had to say
	}
	name := ""
	if len(args) > 0 {
		name = " " + args[0]
	}
	fmt.Fprintf(o.Stderr, "ccv2%s: %v\n", name, err)
	return sandboxes.StatusOf(err)
}

// Commands are the names of this package's commands, with one line about each.
func Commands() []Other {
	var all []Other
	for _, c := range Tool(Options{}).Commands {
		if !c.Hidden {
			all = append(all, Other{c.Name, c.Usage})
		}
	}
	return all
}

// Has reports whether arguments are for a command of this package.
func Has(args []string) bool {
	const complete = "--generate-shell-completion" // what the scripts of completions ask with
	return args[0] == "completion" || args[len(args)-1] == complete ||
		slices.ContainsFunc(Commands(), func(c Other) bool { return c.Name == args[0] })
}

// Tool is the tree of commands.
func Tool(o Options) *cli.Command {
	t := &operator{Options: o}
	root := &cli.Command{
		Name: "ccv2", Usage: "see, explain and end the VMs of pods", Version: o.Version,
		Writer: o.Stdout, ErrWriter: o.Stderr, Reader: o.Stdin,
		EnableShellCompletion: true, HideHelpCommand: true,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // Run says it
		Commands: []*cli.Command{
			psCommand(t), infoCommand(t), consoleCommand(t), eventsCommand(t), statsCommand(t), dumpCommand(t), execCommand(t), shutdownCommand(t), killCommand(t), gcCommand(t), supportCommand(t), metricsCommand(t),
			traceCommand(t), decodeCommand(t), logLevelCommand(t),
		},
	}
	for _, c := range root.Commands {
		if c.Name != "decode" { // which looks at a file alone
			c.Before = t.before
		}
		c.Flags = append(c.Flags, t.commonFlags()...)
		if strings.Contains(c.ArgsUsage, "ID|POD") {
			c.ShellComplete = t.complete
		}
		c.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error {
			return &sandboxes.Error{Status: sandboxes.StatusUsage, Err: err}
		}
	}
	for _, other := range o.Others {
		root.Commands = append(root.Commands, &cli.Command{Name: other.Name, Usage: other.Usage})
	}
	return root
}

// operator is what the commands have in common.
type operator struct {
	Options

	stateDir string // empty: what the configuration says
	config   string
	limit    time.Duration
	json     bool
}

// commonFlags are those of every command.
func (t *operator) commonFlags() []cli.Flag {
	path := os.Getenv(config.EnvPath)
	if path == "" {
		path = config.DefaultPath
	}
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "configuration `FILE`, which says where sandboxes are", Value: path, Destination: &t.config},
		&cli.StringFlag{Name: "state-dir", Usage: "`DIRECTORY` of the sandboxes (default: what the configuration says)", Destination: &t.stateDir},
		&cli.DurationFlag{Name: "timeout", Usage: "how long a shim may take to answer", Value: 2 * time.Second, Destination: &t.limit},
		&cli.BoolFlag{Name: "json", Usage: "print JSON", Destination: &t.json},
	}
}

// before checks what all commands need.
func (t *operator) before(ctx context.Context, _ *cli.Command) (context.Context, error) {
	if err := sandboxes.NeedRoot(os.Geteuid()); err != nil {
		return ctx, err
	}
	if t.limit <= 0 {
		return ctx, sandboxes.UsageError("--timeout %s: want more than 0", t.limit)
	}
	if t.stateDir != "" {
		return ctx, nil
	}
	c, err := config.Load(t.config, nil)
	t.stateDir = c.StateDir
	if t.stateDir == "" {
		return ctx, fmt.Errorf("find out where sandboxes are: %w; --state-dir says it without a configuration", err)
	}
	if err != nil { // it is for pods to come; those that run have another
		fmt.Fprintf(t.Stderr, "ccv2: the configuration cannot be used for new pods: %v\n", err)
	}
	return ctx, nil
}

// one is the sandbox that the only argument names.
func (t *operator) one(c *cli.Command) (sandboxes.Record, error) {
	if c.Args().Len() != 1 {
		return sandboxes.Record{}, sandboxes.UsageError("want the id of one sandbox, or the name of its pod: ccv2 %s %s", c.Name, c.ArgsUsage)
	}
	return sandboxes.Find(t.stateDir, c.Args().First())
}

// complete prints what can be named: the ids of sandboxes and the names of pods, or flags.
func (t *operator) complete(ctx context.Context, c *cli.Command) {
	if last := c.Args().Slice(); len(last) > 0 && strings.HasPrefix(last[len(last)-1], "-") {
		cli.DefaultCompleteWithFlags(ctx, c)
		return
	}
	all, _ := sandboxes.All(t.stateDir) // nothing is completed where there is nothing
	for _, r := range all {
		if about := r.Saved.About; about.Pod != "" {
			fmt.Fprintf(t.Stdout, "%s/%s\n", line(about.PodNamespace), line(about.Pod))
		}
		fmt.Fprintln(t.Stdout, r.Saved.ID)
	}
}

// none refuses arguments.
func none(c *cli.Command) error {
	if c.Args().Present() {
		return sandboxes.UsageError("unexpected argument %q", c.Args().First())
	}
	return nil
}
