package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"strconv"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// agent is a guest in miniature. What a process does is its arguments:
//
//	exit N     ends with N as soon as it was started
//	fast N     ends with N before the command that starts it is answered
//	say TEXT   writes TEXT and ends with 0
//	missing    cannot be started: 127
//	wait       runs until a signal comes, and ends with 128 and its number
//	deaf       runs, and signals to it are never answered
type agent struct {
	t       testing.TB
	dialect hyperstart.Dialect
	// hook, when set, sees every command before it is carried out. A status
	// other than 0 is the answer instead.
	hook func(code hyperstart.Code) (hyperstart.Code, []byte)
	// noted, when set, is told of every command.
	noted func(code hyperstart.Code)
	// ignore has commands that are never answered.
	ignore map[hyperstart.Code]bool

	wg       sync.WaitGroup
	ctl, tty net.Conn

	mu         sync.Mutex // guards the fields below and the order of messages
	containers map[string]*guestContainer
	seen       []hyperstart.Code
	poweroff   func()
}

type guestContainer struct {
	init  *guestProcess
	execs map[string]*guestProcess
}

type guestProcess struct {
	seq     uint64
	args    []string
	running bool
	gone    bool
}

func newAgent(t testing.TB, dialect hyperstart.Dialect) *agent {
	return &agent{t: t, dialect: dialect, containers: make(map[string]*guestContainer), ignore: make(map[hyperstart.Code]bool)}
}

// serve speaks on both ports until they are closed.
func (a *agent) serve(ctl, tty net.Conn) {
	a.ctl, a.tty = ctl, tty
	a.wg.Go(func() {
		r := hyperstart.NewTTYReader(tty)
		for {
			if _, _, err := r.Read(); err != nil {
				return
			}
		}
	})
	a.say(hyperstart.Ready, nil)
	r := hyperstart.NewCtlReader(ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		reply := a.say
		if code == hyperstart.Call {
			ticket, inner, rest, err := hyperstart.ParseCall(payload)
			if err != nil {
				a.t.Error(err)
				return
			}
			a.say(hyperstart.Ack, nil)
			code, payload = inner, append([]byte(nil), rest...)
			reply = func(status hyperstart.Code, answer []byte) {
				a.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, status, answer))
			}
		}
		if a.dialect == hyperstart.DialectCCv2 {
			a.wg.Go(func() { a.handle(code, payload, reply) })
		} else { // one after the other
			a.handle(code, payload, reply)
		}
	}
}

func (a *agent) say(code hyperstart.Code, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.ctl.Write(hyperstart.AppendCtl(nil, code, payload)) // the host may have gone
}

// output writes to a stream; the caller holds a.mu.
func (a *agent) outputLocked(seq uint64, text string) {
	_, _ = a.tty.Write(hyperstart.AppendTTY(nil, seq, []byte(text))) // the host may have gone
}

// endLocked ends a process, once.
func (a *agent) endLocked(p *guestProcess, status byte) {
	if p.gone {
		return
	}
	p.running, p.gone = false, true
	a.outputLocked(p.seq, "")
	a.outputLocked(p.seq, string([]byte{status}))
}

// endContainerLocked ends the first process, and before it all others.
func (a *agent) endContainerLocked(c *guestContainer, status byte) {
	for _, p := range c.execs {
		a.endLocked(p, byte(statusKilled))
	}
	a.endLocked(c.init, status)
}

func (a *agent) handle(code hyperstart.Code, payload []byte, reply func(hyperstart.Code, []byte)) {
	a.mu.Lock()
	a.seen = append(a.seen, code)
	ignored := a.ignore[code]
	a.mu.Unlock()
	if a.noted != nil {
		a.noted(code)
	}
	if ignored {
		return
	}
	if a.hook != nil {
		if status, answer := a.hook(code); status != 0 {
			reply(status, answer)
			return
		}
	}
	answer, failure, after := a.carryOut(code, payload)
	if failure != nil {
		b, err := json.Marshal(failure)
		if err != nil {
			a.t.Error(err)
		}
		reply(hyperstart.Error, b)
		return
	}
	if answer == nil || string(answer) != "silent" {
		reply(hyperstart.Ack, answer)
	}
	if after != nil {
		after()
	}
}

// carryOut does a command; after is for what follows the answer.
func (a *agent) carryOut(code hyperstart.Code, payload []byte) (answer []byte, failure *hyperstart.ErrorReply, after func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch code {
	case hyperstart.GetVersion:
		if a.dialect == hyperstart.DialectClearGo {
			return nil, &hyperstart.ErrorReply{Message: "unknown command"}, nil
		}
		return binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2), nil, nil
	case hyperstart.DestroyPod:
		return nil, nil, a.poweroff
	case hyperstart.NewContainer:
		return a.newContainerLocked(payload)
	case hyperstart.ExecCmd:
		return a.execLocked(payload)
	case hyperstart.StartContainer, hyperstart.RemoveContainer:
		return a.byNameLocked(code, payload)
	case hyperstart.KillContainer, hyperstart.SignalProcess:
		return a.signalLocked(code, payload)
	}
	return nil, nil, nil
}

func (a *agent) newContainerLocked(payload []byte) ([]byte, *hyperstart.ErrorReply, func()) {
	var r hyperstart.NewContainerRequest
	a.decode(payload, &r)
	args := r.Process.Args
	if a.dialect == hyperstart.DialectCCv2 {
		var spec specs.Spec
		a.decode(r.Spec, &spec)
		args = spec.Process.Args
	}
	c := &guestContainer{init: &guestProcess{seq: r.Process.Stdio, args: args}, execs: make(map[string]*guestProcess)}
	a.containers[r.ID] = c
	if a.dialect == hyperstart.DialectCCv2 {
		return nil, nil, nil
	}
	failure, after := a.startLocked(c.init, func(status byte) { a.endContainerLocked(c, status) })
	return nil, failure, after
}

func (a *agent) execLocked(payload []byte) ([]byte, *hyperstart.ErrorReply, func()) {
	var r hyperstart.ExecCmdRequest
	a.decode(payload, &r)
	args := r.Process.Args
	if a.dialect == hyperstart.DialectCCv2 {
		var process specs.Process
		a.decode(r.Process.OCI, &process)
		args = process.Args
	}
	c := a.containers[r.Container]
	if c == nil || c.init.gone {
		return nil, &hyperstart.ErrorReply{Class: hyperstart.ClassFailedPrecondition, Message: "container has ended"}, nil
	}
	p := &guestProcess{seq: r.Process.Stdio, args: args}
	c.execs[r.Process.ID] = p
	failure, after := a.startLocked(p, func(status byte) { a.endLocked(p, status) })
	return nil, failure, after
}

// startLocked runs a process.
func (a *agent) startLocked(p *guestProcess, end func(status byte)) (failure *hyperstart.ErrorReply, after func()) {
	p.running = true
	later := func(do func()) func() {
		return func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			do()
		}
	}
	switch p.args[0] {
	case "exit":
		return nil, later(func() { end(number(p.args[1])) })
	case "fast":
		end(number(p.args[1]))
	case "say":
		return nil, later(func() { a.outputLocked(p.seq, p.args[1]); end(0) })
	case "missing":
		p.running = false
		return &hyperstart.ErrorReply{Class: hyperstart.ClassNotFound, Message: "no such file", ExitStatus: 127}, nil
	}
	return nil, nil
}

func (a *agent) byNameLocked(code hyperstart.Code, payload []byte) ([]byte, *hyperstart.ErrorReply, func()) {
	var r hyperstart.ContainerRef
	a.decode(payload, &r)
	c := a.containers[r.Container]
	switch {
	case c == nil:
		return nil, &hyperstart.ErrorReply{Class: hyperstart.ClassNotFound, Message: "no such container"}, nil
	case code == hyperstart.StartContainer:
		failure, after := a.startLocked(c.init, func(status byte) { a.endContainerLocked(c, status) })
		return nil, failure, after
	case c.init.running:
		return nil, &hyperstart.ErrorReply{Class: hyperstart.ClassFailedPrecondition, Message: "container is running"}, nil
	}
	delete(a.containers, r.Container)
	return nil, nil, nil
}

func (a *agent) signalLocked(code hyperstart.Code, payload []byte) ([]byte, *hyperstart.ErrorReply, func()) {
	var r hyperstart.SignalProcessRequest
	a.decode(payload, &r)
	c := a.containers[r.Container]
	if c == nil {
		return nil, &hyperstart.ErrorReply{Class: hyperstart.ClassNotFound, Message: "no such container"}, nil
	}
	p, status := c.init, byte(128+r.Signal)
	if code == hyperstart.SignalProcess {
		p = c.execs[r.Process]
	}
	switch {
	case p == nil || p.gone:
		return nil, &hyperstart.ErrorReply{Class: hyperstart.ClassNotFound, Message: "no such process"}, nil
	case p.args[0] == "deaf":
		return []byte("silent"), nil, nil
	case p == c.init:
		a.endContainerLocked(c, status)
	default:
		a.endLocked(p, status)
	}
	return nil, nil, nil
}

func (a *agent) decode(b []byte, v any) {
	if err := json.Unmarshal(b, v); err != nil {
		a.t.Errorf("agent: %q: %v", b, err)
	}
}

func number(s string) byte {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return byte(n)
}

// left returns the ids of the containers that the guest still has.
func (a *agent) left() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for id := range a.containers {
		ids = append(ids, id)
	}
	return ids
}
