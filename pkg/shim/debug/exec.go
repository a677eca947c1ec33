package debug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// guestPath is where a program of the guest is looked for.
const guestPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// execs counts the programs, for their ids.
var execs atomic.Uint64

// program is one that runs in the VM for a client.
type program struct {
	guest   client.Guest
	session client.Session
	target  client.Target
	conn    debugapi.Debug_ExecServer

	mu sync.Mutex // held while a message is sent: the two outputs come side by side
}

// runProgram runs a program in the VM, which ends with its client.
func (s *Service) runProgram(ctx context.Context, start *debugapi.ExecStart, conn debugapi.Debug_ExecServer) error {
	if len(start.GetArgs()) == 0 {
		return fmt.Errorf("exec in the vm: no program is named: %w", errdefs.ErrInvalidArgument)
	}
	guest := s.opts.Machine.Report().Guest
	if guest == nil {
		return fmt.Errorf("exec in the vm: the sandbox is %s: %w", s.opts.Sandbox.State(), errdefs.ErrFailedPrecondition)
	}
	session, err := guest.OpenSession(ctx)
	if err != nil {
		return fmt.Errorf("exec in the vm: %w", err)
	}
	defer session.Close()
	p := &program{guest: guest, session: session, target: client.Target{ExecID: fmt.Sprintf("operator-%d", execs.Add(1))}, conn: conn}
	if err := guest.Exec(ctx, session, execOf(p.target.ExecID, start)); err != nil {
		return fmt.Errorf("exec in the vm: %w", err)
	}
	s.opts.History.Note("vm-exec", "program "+printable.Line(start.GetArgs()[0], printable.MaxName))
	return p.attend(ctx)
}

// execOf is what the guest is asked for. Without a container it is a program of its own.
func execOf(id string, start *debugapi.ExecStart) client.Exec {
	process := &specs.Process{Args: start.GetArgs(), Env: append([]string{guestPath}, start.GetEnv()...), Cwd: start.GetCwd(), Terminal: start.GetTerminal()}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	if start.GetTerminal() && start.GetRows() > 0 && start.GetColumns() > 0 {
		process.ConsoleSize = &specs.Box{Height: uint(start.GetRows()), Width: uint(start.GetColumns())}
	}
	return client.Exec{ID: id, Process: process, Terminal: start.GetTerminal()}
}

// attend copies the streams until the program has ended. When the client goes, so does
// the program.
func (p *program) attend(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, input := io.Pipe()
	var inputs, outputs sync.WaitGroup
	defer inputs.Wait()
	defer stdin.Close() // whoever writes to it gives up
	outputs.Go(func() {
		p.copy(p.session.Stdout(), func(b []byte) *debugapi.ExecOutput { return &debugapi.ExecOutput{Stdout: b} })
	})
	outputs.Go(func() {
		p.copy(p.session.Stderr(), func(b []byte) *debugapi.ExecOutput { return &debugapi.ExecOutput{Stderr: b} })
	})
	inputs.Go(func() {
		if p.session.WriteStdin(ctx, stdin) == nil {
			_ = p.session.CloseStdin() // it may have ended
		}
	})
	go p.control(ctx, input, cancel) // ends with the connection's request, which ends with this function
	select {
	case <-p.session.Done():
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // the outputs end with the session
		p.kill(ctx)
		return ctx.Err()
	}
	status, err := p.session.Exit()
	outputs.Wait()
	if err != nil {
		return fmt.Errorf("exec in the vm: %w", err)
	}
	return p.send(&debugapi.ExecOutput{Exited: true, Status: uint32(status)})
}

// kill ends the program of a client that has gone.
func (p *program) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signalLimit)
	defer cancel()
	_ = p.guest.Signal(ctx, p.session, p.target, int(unix.SIGKILL)) // a guest that does not answer keeps it
}

// control does what the client says, until it has gone.
func (p *program) control(ctx context.Context, input *io.PipeWriter, gone func()) {
	defer gone()
	for {
		in, err := p.conn.Recv()
		if err != nil {
			_ = input.CloseWithError(io.ErrUnexpectedEOF)
			if errors.Is(err, io.EOF) { // it has no more to say, and still listens
				<-ctx.Done()
			}
			return
		}
		if len(in.GetStdin()) > 0 {
			_, _ = input.Write(in.GetStdin()) // of a program that has ended nothing is left
		}
		if in.GetCloseStdin() {
			_ = input.Close()
		}
		if in.GetRows() > 0 && in.GetColumns() > 0 {
			_ = p.session.Resize(ctx, int(in.GetRows()), int(in.GetColumns())) // the next one counts
		}
		if in.GetSignal() > 0 {
			_ = p.guest.Signal(ctx, p.session, p.target, int(in.GetSignal())) // the client sees whether it ends
		}
	}
}

// copy copies an output to the client.
func (p *program) copy(from client.Stream, message func([]byte) *debugapi.ExecOutput) {
	_, err := from.WriteTo(writer(func(b []byte) error { return p.send(message(b)) }))
	if err != nil {
		from.Discard() // the program must not block
	}
}

func (p *program) send(m *debugapi.ExecOutput) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn.Send(m)
}

// writer is an io.Writer that does nothing else.
type writer func([]byte) error

// Write implements [io.Writer].
func (w writer) Write(b []byte) (int, error) {
	if err := w(b); err != nil {
		return 0, err
	}
	return len(b), nil
}
