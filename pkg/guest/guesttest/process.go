package guesttest

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Process is a process of the guest, in the hands of the test.
type Process struct {
	guest   *Guest
	session *session
	pid     int
	args    []string

	// Guarded by guest.mu.
	started bool
	exited  bool
	signals []int
}

// newProcessLocked makes the process of a session; the caller holds g.mu.
func (g *Guest) newProcessLocked(s client.Session, spec *specs.Process) (*Process, error) {
	own, ok := s.(*session)
	if !ok || own.process != nil {
		return nil, fmt.Errorf("the session %v is not one of this guest, or has a process", s)
	}
	g.lastPID++
	p := &Process{guest: g, session: own, pid: g.lastPID, args: []string{""}}
	if spec != nil && len(spec.Args) > 0 {
		p.args = spec.Args
	}
	if spec != nil && spec.ConsoleSize != nil {
		own.setSize(int(spec.ConsoleSize.Height), int(spec.ConsoleSize.Width))
	}
	own.process = p
	return p, nil
}

// Process returns a process of a container, "" for the init process. It waits
// until there is one that was started, or ctx ends and it is nil.
func (g *Guest) Process(ctx context.Context, container, execID string) *Process {
	var p *Process
	err := g.wait(ctx, func() bool {
		c := g.containers[container]
		switch {
		case c == nil:
			return false
		case execID == "":
			p = c.init
		default:
			p = c.execs[execID]
		}
		return p != nil && p.started
	})
	if err != nil {
		return nil
	}
	return p
}

// Forwarded returns the last connection that was forwarded to a port. It waits
// for the first one, or until ctx ends and it is nil.
func (g *Guest) Forwarded(ctx context.Context, port uint16) *Process {
	var p *Process
	if err := g.wait(ctx, func() bool { p = g.forwards[port]; return p != nil && p.started }); err != nil {
		return nil
	}
	return p
}

// start runs the process, and does what its arguments say.
func (p *Process) start() error {
	number := func() uint8 {
		n, err := strconv.ParseUint(p.args[1], 10, 8)
		if err != nil {
			panic(err) // a defect of the test
		}
		return uint8(n)
	}
	if p.args[0] == "missing" {
		p.Exit(127) // as the agent does: nothing is left of a container that does not start
		return client.Classify(&proxyproto.RemoteError{
			Command: proxyproto.CmdHyper, Msg: "no such file", Class: string(hyperstart.ClassNotFound), ExitStatus: 127,
		})
	}
	p.guest.mu.Lock()
	p.started = true
	p.guest.cond.Broadcast()
	p.guest.mu.Unlock()
	switch p.args[0] {
	case "exit":
		p.Exit(number())
	case "say":
		p.Stdout(p.args[1])
		p.Exit(0)
	}
	return nil
}

// Exit ends the process; the first exit counts. With an init process the exec
// processes of its container are killed.
func (p *Process) Exit(status uint8) {
	g := p.guest
	g.mu.Lock()
	var others []*Process
	for _, c := range g.containers {
		if c.init == p {
			others = slices.DeleteFunc(c.all(), func(o *Process) bool { return o == p })
		}
	}
	g.mu.Unlock()
	for _, o := range others {
		o.exit(killedStatus)
	}
	p.exit(status)
}

func (p *Process) exit(status uint8) {
	p.guest.mu.Lock()
	first := !p.exited
	p.exited = true
	p.guest.cond.Broadcast()
	p.guest.mu.Unlock()
	if first {
		p.session.end(status, nil)
	}
}

// signal delivers a signal, which ends the process unless it is deaf.
func (p *Process) signal(number int) {
	p.guest.mu.Lock()
	p.signals = append(p.signals, number)
	p.guest.mu.Unlock()
	if number != 0 && p.args[0] != "deaf" {
		p.Exit(128 + uint8(number))
	}
}

// Stdout writes to the process's stdout.
func (p *Process) Stdout(text string) { p.session.stdout.write(text) }

// Stderr writes to the process's stderr.
func (p *Process) Stderr(text string) { p.session.stderr.write(text) }

// Stdin returns what the process got on its stdin so far, and whether that is
// closed.
func (p *Process) Stdin() (text string, closed bool) { return p.session.input() }

// WaitStdin waits until stdin is closed and returns all of it.
func (p *Process) WaitStdin(ctx context.Context) (string, error) { return p.session.waitInput(ctx) }

// Signals returns the signals that the process got.
func (p *Process) Signals() []int {
	p.guest.mu.Lock()
	defer p.guest.mu.Unlock()
	return slices.Clone(p.signals)
}

// Size is what the process's terminal was resized to last, or started with.
func (p *Process) Size() (rows, columns int) { return p.session.size() }

// PID is the process's id in the guest.
func (p *Process) PID() int { return p.pid }
