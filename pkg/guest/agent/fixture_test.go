package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/shared"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// guest is an agent with a runtime that is not one, and the host of its tty port.
type guest struct {
	t       *testing.T
	agent   *Agent
	runtime *fake.Runtime
	tty     net.Conn
	events  chan hyperstart.EventMessage

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	seq     uint64
	manual  map[uint64]bool // streams that get no credit by themselves
	streams map[uint64]*seen
	exits   []uint64 // sequence numbers of stdio in the order of the exits
}

// seen is what the host has seen of a stream.
type seen struct {
	data   []byte
	ended  bool
	status *uint8
}

// newGuest returns a guest whose pod is started. All processes end with the test.
func newGuest(t *testing.T) *guest {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	host, port := net.Pipe()
	g := &guest{
		t: t, runtime: fake.New(), tty: host, events: make(chan hyperstart.EventMessage, 64),
		changed: make(chan struct{}), manual: map[uint64]bool{}, streams: map[uint64]*seen{},
	}
	root := t.TempDir()
	a := &Agent{booted: make(chan struct{})}
	close(a.booted)
	oom, err := cgroups.NewOOMWatcher(func(id string) {
		g.events <- hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: id}
	})
	if err != nil {
		t.Fatal(err)
	}
	sockets := shortDir(t)
	a.containers = &containers{
		runtime: g.runtime, drivers: g, oom: oom, huge: &cgroups.HugePages{}, shared: shared.New("/no/share", t.TempDir(), "/no/memory"),
		tty:     streams.NewPort(port, sockets, func(err error) { t.Errorf("tty port failed: %v", err) }),
		bundles: filepath.Join(root, "bundles"), root: root, cgroups: filepath.Join(root, "cgroups"),
		newGroup: g.newGroup,
		podReady: a.podReady, notify: func(e hyperstart.EventMessage) { g.events <- e },
	}
	g.agent = a
	served, read := make(chan struct{}), make(chan struct{})
	go func() { _ = a.containers.tty.Serve(); close(served) }()
	go func() { g.readTTY(); close(read) }()
	t.Cleanup(func() {
		for _, c := range a.containers.all() {
			_ = c.group.Kill()
			for _, p := range c.processes() {
				p.io.Discard()
				<-p.finished
			}
		}
		a.containers.background.Wait()
		host.Close()
		<-served
		<-read
		oom.Close()
	})
	g.ok(hyperstart.StartPod, hyperstart.StartPodRequest{})
	return g
}

// shortDir is for sockets, whose paths must be shorter than t.TempDir's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newGroup makes a control group of the runtime, with a counter of OOM kills.
func (g *guest) newGroup(path string) Group {
	if err := os.MkdirAll(path, 0o700); err != nil {
		g.t.Error(err)
	}
	g.oomKills(filepath.Base(path), 0)
	return g.runtime.Group(path)
}

// oomKills makes the kernel's counter of a container say n.
func (g *guest) oomKills(container string, n int) {
	path := filepath.Join(g.agent.containers.cgroups, container, "memory.events")
	if err := os.WriteFile(path, fmt.Appendf(nil, "oom_kill %d\n", n), 0o600); err != nil {
		g.t.Error(err)
	}
}

func (g *guest) HasCharDevice(_, _ int64) bool { return true }

// FindDisk finds any, with a number that is its serial's length.
func (g *guest) FindDisk(_ context.Context, serial string) (major, minor int64, err error) {
	return 254, int64(len(serial)), nil
}

func (g *guest) LoadIptables() {}

func (g *guest) LoadLate() {}

// readTTY collects what the guest sends.
func (g *guest) readTTY() {
	r := hyperstart.NewTTYReader(g.tty)
	for {
		seq, payload, err := r.Read()
		if err != nil {
			return
		}
		if seq == hyperstart.CreditSeq {
			continue
		}
		g.mu.Lock()
		s := g.streams[seq]
		if s == nil {
			s = &seen{}
			g.streams[seq] = s
		}
		switch {
		case s.ended:
			s.status = &bytes.Clone(payload)[0]
			g.exits = append(g.exits, seq)
		case len(payload) == 0:
			s.ended = true
		default:
			s.data = append(s.data, payload...)
		}
		grant := !g.manual[seq] && len(payload) > 0
		close(g.changed)
		g.changed = make(chan struct{})
		g.mu.Unlock()
		if grant {
			_, _ = g.tty.Write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: seq, Bytes: uint32(len(payload))}))
		}
	}
}

// await waits until what the host has seen fulfils a condition.
func (g *guest) await(what string, fulfilled func() bool) {
	g.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		g.mu.Lock()
		ok, changed := fulfilled(), g.changed
		g.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			g.t.Fatalf("the host has not seen %s", what)
		}
	}
}

// proc is a process as its host knows it.
type proc struct {
	g    *guest
	req  *hyperstart.Process
	fake *fake.Process // nil as long as it is not started
}

// output waits for exactly this output on stdout.
func (p *proc) output(want string) {
	p.g.t.Helper()
	p.g.await("output "+want, func() bool {
		s := p.g.streams[p.req.Stdio]
		return s != nil && string(s.data) == want
	})
}

// exit waits for the exit status.
func (p *proc) exit() int {
	p.g.t.Helper()
	var status int
	p.g.await("the exit of "+p.req.ID, func() bool {
		s := p.g.streams[p.req.Stdio]
		if s == nil || s.status == nil {
			return false
		}
		status = int(*s.status)
		return true
	})
	return status
}

// send sends the process input, none ends it.
func (p *proc) send(input string) {
	p.g.t.Helper()
	if _, err := p.g.tty.Write(hyperstart.AppendTTY(nil, p.req.Stdio, []byte(input))); err != nil {
		p.g.t.Fatal(err)
	}
}

// write writes to stdout of the process.
func (p *proc) write(output string) {
	p.g.t.Helper()
	if _, err := p.fake.Stdout.WriteString(output); err != nil {
		p.g.t.Fatal(err)
	}
}

// newProc allocates sequence numbers.
func (g *guest) newProc(id string) *proc {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seq += 2
	return &proc{g: g, req: &hyperstart.Process{ID: id, Stdio: g.seq - 1, Stderr: g.seq}}
}

// noCredit leaves the process with the credit of its first window.
func (p *proc) noCredit() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.manual[p.req.Stdio] = true
}

// call runs a command.
func (g *guest) call(ctx context.Context, code hyperstart.Code, payload any) ([]byte, error) {
	g.t.Helper()
	b, err := json.Marshal(payload)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.agent.handlers()[code](ctx, b)
}

// ok runs a command that must succeed.
func (g *guest) ok(code hyperstart.Code, payload any) []byte {
	g.t.Helper()
	answer, err := g.call(g.t.Context(), code, payload)
	if err != nil {
		g.t.Fatalf("%s: %v", code, err)
	}
	return answer
}

// begin runs a command beside the test.
func (g *guest) begin(code hyperstart.Code, payload any) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := g.call(g.t.Context(), code, payload)
		done <- err
	}()
	return done
}

// refuse runs a command that must fail, and checks class and text.
func (g *guest) refuse(code hyperstart.Code, payload any, class hyperstart.ErrorClass, text string) {
	g.t.Helper()
	_, err := g.call(g.t.Context(), code, payload)
	e, ok := errors.AsType[*hyperstart.GuestError](err)
	if !ok || e.Class != class || !strings.Contains(err.Error(), text) {
		g.t.Errorf("%s: got %v, want class %s and %q", code, err, class, text)
	}
}

func ref(id string) hyperstart.ContainerRef { return hyperstart.ContainerRef{Container: id} }

func killOf(id string, sig int, all bool) hyperstart.KillContainerRequest {
	return hyperstart.KillContainerRequest{Container: id, Signal: sig, AllProcesses: all}
}

func marshal(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// createRequest is for a container that runs a program.
func (g *guest) createRequest(id string, p *proc) hyperstart.NewContainerRequest {
	g.t.Helper()
	return hyperstart.NewContainerRequest{ID: id, Process: p.req, Spec: marshal(g.t, &specs.Spec{
		Process: &specs.Process{Args: []string{"program"}, Terminal: p.req.Terminal},
	})}
}

func (g *guest) execRequest(container string, p *proc) hyperstart.ExecCmdRequest {
	g.t.Helper()
	p.req.OCI = marshal(g.t, specs.Process{Args: []string{"program"}, Terminal: p.req.Terminal})
	return hyperstart.ExecCmdRequest{Container: container, Process: p.req}
}

// create creates a container.
func (g *guest) create(id string) *proc {
	g.t.Helper()
	p := g.newProc(hyperstart.InitProcess)
	g.ok(hyperstart.NewContainer, g.createRequest(id, p))
	p.fake = g.runtime.Process(id, hyperstart.InitProcess)
	return p
}

// run creates and starts a container.
func (g *guest) run(id string) *proc {
	g.t.Helper()
	p := g.create(id)
	g.start(id)
	return p
}

func (g *guest) start(id string) {
	g.t.Helper()
	g.ok(hyperstart.StartContainer, ref(id))
}

// exec starts an exec process in container c.
func (g *guest) exec(id string) *proc {
	g.t.Helper()
	p := g.newProc(id)
	g.ok(hyperstart.ExecCmd, g.execRequest("c", p))
	p.fake = g.runtime.Process("c", id)
	return p
}

// state returns the state of container c.
func (g *guest) state() containerState {
	g.t.Helper()
	c, err := g.agent.containers.find("c")
	if err != nil {
		g.t.Fatal(err)
	}
	return c.current()
}
