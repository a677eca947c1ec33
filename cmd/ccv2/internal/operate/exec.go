package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"github.com/containerd/console"
	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// toolsDir is where programs of the host are put in the guest.
const toolsDir = "/run/ccv2/tools"

func execCommand(t *tool) *cli.Command {
	var tty bool
	var bring string
	one := 1
	return &cli.Command{
		Name: "exec", Usage: "run a program in the VM of a sandbox, outside of every container", ArgsUsage: "ID|POD PROGRAM [ARGUMENT...]",
		Description: "The program is one of the guest, whose image has few, or with --copy a static one of the host, which is put into the guest's memory: " +
			"ccv2 exec -t --copy /bin/busybox ID busybox sh. The exit status is the program's.",
		StopOnNthArg: &one,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal", Destination: &tty},
			&cli.StringFlag{Name: "copy", Usage: "put a static program of the host into the guest first, a `FILE`", Destination: &bring, TakesFile: true},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Len() < 2 {
				return sandboxes.UsageError("want the id of one sandbox, or the name of its pod, and a program: ccv2 exec %s", c.ArgsUsage)
			}
			r, err := sandboxes.Find(t.StateDir, c.Args().First())
			if err != nil {
				return err
			}
			if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil { // one that hangs is found soon
				return sandboxes.Explain(r, err)
			}
			args := c.Args().Tail()
			if bring != "" {
				path := filepath.Join(toolsDir, filepath.Base(bring))
				if err := t.bring(ctx, r, bring, path); err != nil {
					return err
				}
				if args[0] == filepath.Base(bring) {
					args[0] = path
				}
			}
			status, err := t.run(ctx, r, &debugapi.ExecStart{Args: args, Terminal: tty}, t.Stdin)
			if err != nil {
				return sandboxes.Explain(r, err)
			}
			if status != 0 {
				return cli.Exit("", int(status))
			}
			return nil
		},
	}
}

// bring puts a program of the host into the guest.
func (t *tool) bring(ctx context.Context, r sandboxes.Record, file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("copy a program into the guest: %w", err)
	}
	defer f.Close()
	quiet := &tool{&operator.Operator{Options: Options{Stdout: io.Discard, Stderr: t.Stderr}}}
	status, err := quiet.run(ctx, r, &debugapi.ExecStart{Args: []string{"receive", path}}, f)
	if err != nil {
		return sandboxes.Explain(r, fmt.Errorf("copy %s into the guest: %w", file, err))
	}
	if status != 0 {
		return fmt.Errorf("copy %s into the guest: it ended with status %d", file, status)
	}
	return nil
}

// run runs a program, and returns its status.
func (t *tool) run(ctx context.Context, r sandboxes.Record, start *debugapi.ExecStart, stdin io.Reader) (uint32, error) {
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Exec(c.Stream(ctx))
	if err != nil {
		return 0, err
	}
	if start.GetTerminal() {
		start.Env = append(start.Env, "TERM="+os.Getenv("TERM"))
		restore, err := raw(start)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	var mu sync.Mutex // held while a message is sent
	send := func(m *debugapi.ExecInput) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(m)
	}
	start.Activity = sandboxes.Activity()
	if err := send(&debugapi.ExecInput{Start: start}); err != nil {
		return 0, err
	}
	go sendInput(stdin, send) // ends with the input, or with this process
	if start.GetTerminal() {
		go sendSizes(ctx, send)
	}
	status, err := t.receive(stream)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // the operator has seen enough
	}
	return status, err
}

// receive copies what the program writes, until it ends.
func (t *tool) receive(stream debugapi.Debug_ExecClient) (uint32, error) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		_, outErr := t.Stdout.Write(m.GetStdout())
		_, errErr := t.Stderr.Write(m.GetStderr())
		if err := errors.Join(outErr, errErr); err != nil {
			return 0, err
		}
		if m.GetExited() {
			return m.GetStatus(), nil
		}
	}
}

// sendInput sends the input until it ends.
func sendInput(stdin io.Reader, send func(*debugapi.ExecInput) error) {
	const chunk = 32 << 10
	for b := make([]byte, chunk); stdin != nil; {
		n, err := stdin.Read(b)
		if n > 0 && send(&debugapi.ExecInput{Stdin: b[:n]}) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	_ = send(&debugapi.ExecInput{CloseStdin: true}) // the program may have ended
}

// raw gives the program this terminal, as it is.
func raw(start *debugapi.ExecStart) (restore func(), err error) {
	term, err := console.ConsoleFromFile(os.Stdin)
	if err != nil {
		return nil, sandboxes.UsageError("--tty: the standard input is no terminal")
	}
	if size, err := term.Size(); err == nil {
		start.Rows, start.Columns = uint32(size.Height), uint32(size.Width)
	}
	if err := term.SetRaw(); err != nil {
		return nil, fmt.Errorf("make the terminal raw: %w", err)
	}
	return func() { _ = term.Reset() }, nil
}

// sendSizes sends each new size of this terminal.
func sendSizes(ctx context.Context, send func(*debugapi.ExecInput) error) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		term, err := console.ConsoleFromFile(os.Stdin)
		if err != nil {
			return
		}
		if size, err := term.Size(); err != nil || send(&debugapi.ExecInput{Rows: uint32(size.Height), Columns: uint32(size.Width)}) != nil {
			return
		}
	}
}
