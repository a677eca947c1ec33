package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/watch"
)

type (
	// Options are what the commands work with.
	Options = operator.Options
	// Spare is a spare VM.
	Spare = operator.Spare
	// Other is a command that is elsewhere.
	Other = operator.Other
)

// tool is what the commands have in common.
type tool struct{ *operator.Operator }

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
			all = append(all, Other{Name: c.Name, Usage: c.Usage})
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
	t := &tool{&operator.Operator{Options: o}}
	root := &cli.Command{
		Name: "ccv2", Usage: "see, explain and end the VMs of pods", Version: o.Version,
		Writer: o.Stdout, ErrWriter: o.Stderr, Reader: o.Stdin,
		EnableShellCompletion: true, HideHelpCommand: true,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // Run says it
		Commands: append([]*cli.Command{
			psCommand(t), infoCommand(t), statsCommand(t), dumpCommand(t), execCommand(t), diskCommand(t), shutdownCommand(t), killCommand(t), gcCommand(t), supportCommand(t), logLevelCommand(t),
		}, watch.Commands(t.Operator)...),
	}
	for _, c := range root.Commands {
		if c.Name != "decode" { // which looks at a file alone
			c.Before = t.Before
		}
		c.Flags = append(c.Flags, t.CommonFlags()...)
		if c.ShellComplete == nil && strings.Contains(c.ArgsUsage, "ID|POD") {
			c.ShellComplete = t.Complete
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
