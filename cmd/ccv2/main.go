// Command ccv2 is the operator's tool.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operate"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
)

// command is one subcommand. run gets the arguments after the name and returns
// an error that is printed as one line.
type command struct {
	name  string
	usage string // one line
	run   func(args []string, stdout, stderr io.Writer) error
}

// commands is the table of subcommands, in the order of the help text.
func commands() []command {
	return []command{
		{"check", "check this host, boot a probe VM and measure it", runCheck},
		{"install", "put the bundle that this tool is in on a host", runInstall},
		{"upgrade", "put it in the place of what is installed", runUpgrade},
		{"uninstall", "take away what was installed", runUninstall},
		{"node", "install on the node of this pod, label it, and clean up when the DaemonSet is deleted", runNode},
		{"template", "make, list and remove what VMs start from", runTemplate},
		{"image", "build the guest's kernel and initramfs", runImage},
		{"man", "write the manual pages into a directory", runMan},
		{"version", "print the version", runVersion},
	}
}

// version is set by the linker.
var version = "devel"

func runVersion(_ []string, stdout, _ io.Writer) error {
	_, err := fmt.Fprintln(stdout, "ccv2", version, runtime.Version())
	return err
}

func main() {
	if spare.Wake(os.Args) { // it is no user who has called it
		return
	}
	os.Exit(dispatch(os.Args[1:], os.Stdout, os.Stderr))
}

// dispatch runs one command and returns the exit status: 2 for wrong usage.
func dispatch(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return 2
	}
	operator := operate.Options{Version: version, Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Others: others(), DeadSpares: deadSpares}
	if operate.Has(args) {
		return operate.Run(operator, args)
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		if err := c.run(args[1:], stdout, stderr); err != nil {
			fmt.Fprintf(stderr, "ccv2 %s: %v\n", c.name, err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(stderr, "ccv2: unknown command %q\n", args[0])
	usage(stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: ccv2 COMMAND [ARGUMENT...]\n\nsandboxes of this host (ccv2 COMMAND --help says more):")
	for _, c := range operate.Commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.Name, c.Usage)
	}
	fmt.Fprintln(w, "\nthe host itself:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.usage)
	}
	fmt.Fprintln(w, "\nccv2 completion bash|zsh|fish prints a script that completes all of these")
}
