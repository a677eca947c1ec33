package shell

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// again is how long a shell that has ended is not started anew.
const again = time.Second

// Serve runs the shell that the kernel's command line names, anew whenever it has ended. run runs a program to its end.
// Without one it returns at once.
func Serve(run func(*exec.Cmd) error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		console.Logf("shell on the console: %v", err)
		return
	}
	program := named(string(cmdline))
	for err == nil && program != "" {
		if err = serve(program, "/dev/ttyS0", run); err == nil {
			<-time.After(again)
		}
	}
	if err != nil {
		console.Logf("shell on the console: %v; ccv2 image build --add puts one into the image", err)
	}
}

// named is the program that a command line names; "" when it names none.
func named(cmdline string) (program string) {
	for arg := range strings.FieldsSeq(cmdline) {
		if value, ok := strings.CutPrefix(arg, layout.ShellArg+"="); ok {
			program = value
		}
	}
	return program
}

// serve runs a program on a terminal, as the leader of its session.
func serve(program, terminal string, run func(*exec.Cmd) error) error {
	tty, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	defer tty.Close()
	return run(&exec.Cmd{
		Path: program, Args: []string{"-sh"}, Dir: "/", Stdin: tty, Stdout: tty, Stderr: tty,
		// Of a terminal that understands no sequences none are shown.
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=dumb"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	})
}
