package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestContainerLife(t *testing.T) {
	g := newGuest(t)
	p := g.create("c")
	config, err := os.ReadFile(filepath.Join(g.agent.containers.bundles, "c", "config.json"))
	if want := `{"linux":{"cgroupsPath":"/cgroups/c"},"mounts":[],"ociVersion":"","process":{"args":["program"],"cwd":"","rlimits":` + limitsJSON + `,"user":{"uid":0,"gid":0}}}`; err != nil || string(config) != want {
		t.Errorf("config %s, %v, want %s", config, err, want)
	}
	g.start("c")
	p.send("input")
	b := make([]byte, 16)
	if n, err := p.fake.Stdin.Read(b); err != nil || string(b[:n]) != "input" {
		t.Errorf("stdin %q, %v", b[:n], err)
	}
	p.write("output")
	p.output("output")
	p.fake.Exit(3)
	if got := p.exit(); got != 3 {
		t.Errorf("exit status %d, want 3", got)
	}
	if got := g.state(); got != stateStopped {
		t.Errorf("container is %s", got)
	}
	g.ok(hyperstart.RemoveContainer, ref("c"))
	if _, err := os.Stat(filepath.Join(g.agent.containers.bundles, "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("bundle after removal: %v", err)
	}
	if diff := cmp.Diff([]string{"create c", "start c", "delete c"}, g.runtime.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	g.run("c") // the id is free
}

func TestCreateFails(t *testing.T) {
	g := newGuest(t)
	p := g.newProc(hyperstart.InitProcess)
	for name, spoil := range map[string]func(*hyperstart.NewContainerRequest){
		"path as id": func(r *hyperstart.NewContainerRequest) { r.ID = "../c" },
		"no process": func(r *hyperstart.NewContainerRequest) { r.Process = nil },
		"no spec":    func(r *hyperstart.NewContainerRequest) { r.Spec = nil },
		"no command": func(r *hyperstart.NewContainerRequest) { r.Spec = json.RawMessage(`{"process":{}}`) },
		"no stderr":  func(r *hyperstart.NewContainerRequest) { r.Process = &hyperstart.Process{Stdio: 1} },
	} {
		req := g.createRequest("c", p)
		spoil(&req)
		if _, err := g.call(t.Context(), hyperstart.NewContainer, req); err == nil {
			t.Errorf("%s: created", name)
		}
	}
	g.runtime.Fail(fake.Create, hyperstart.Errorf(hyperstart.ClassResourceExhausted, "no room"))
	g.refuse(hyperstart.NewContainer, g.createRequest("c", p), hyperstart.ClassResourceExhausted, "no room")
	if entries, err := os.ReadDir(g.agent.containers.bundles); err != nil || len(entries) != 0 {
		t.Errorf("bundles are left: %v, %v", entries, err)
	}
	// Neither the id nor the sequence numbers are in use.
	g.ok(hyperstart.NewContainer, g.createRequest("c", p))
	g.refuse(hyperstart.NewContainer, g.createRequest("c", g.newProc("")), hyperstart.ClassAlreadyExists, "container c exists")
	g.refuse(hyperstart.NewContainer, g.createRequest("d", p), hyperstart.ClassAlreadyExists, "sequence number")
}

// TestCreateOfCallerThatLeaves removes a container whose creation was given up.
func TestCreateOfCallerThatLeaves(t *testing.T) {
	g := newGuest(t)
	entered, release := g.runtime.Hold(fake.Create)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	req := g.createRequest("c", g.newProc(hyperstart.InitProcess))
	go func() {
		_, err := g.call(ctx, hyperstart.NewContainer, req)
		done <- err
	}()
	<-entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	g.refuse(hyperstart.StartContainer, ref("c"), hyperstart.ClassNotFound, "no container c")
}

// TestStartFails kills the container: its init process cannot be started again.
func TestStartFails(t *testing.T) {
	g := newGuest(t)
	p := g.create("c")
	g.runtime.Fail(fake.Start, errors.New("no such program"))
	if _, err := g.call(t.Context(), hyperstart.StartContainer, ref("c")); err == nil || err.Error() != "no such program" {
		t.Errorf("got %v", err)
	}
	if got := p.exit(); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
	g.ok(hyperstart.RemoveContainer, ref("c"))
}

// TestStartOfAnOriginalFails: an original host that is told of an error can use the id again.
func TestStartOfAnOriginalFails(t *testing.T) {
	g := newGuest(t)
	g.runtime.Fail(fake.Start, errors.New("exec format error"))
	p := g.newProc(hyperstart.InitProcess)
	if err := createAndStart(t.Context(), g.agent.containers, g.createRequest("c", p)); err == nil || err.Error() != "exec format error" {
		t.Errorf("got %v", err)
	}
	if all := g.agent.containers.all(); len(all) != 0 {
		t.Errorf("left: %v", all[0].current())
	}
	g.run("c")
}

// TestPauseFails leaves the container in the state that it has.
func TestPauseFails(t *testing.T) {
	g := newGuest(t)
	g.run("c")
	for _, tt := range []struct {
		op   string
		code hyperstart.Code
		want containerState
	}{
		{fake.Pause, hyperstart.PauseContainer, stateRunning},
		{"", hyperstart.PauseContainer, statePaused},
		{fake.Resume, hyperstart.ResumeContainer, statePaused},
		{"", hyperstart.ResumeContainer, stateRunning},
	} {
		if tt.op != "" {
			g.runtime.Fail(tt.op, errors.New("it does not work"))
		}
		if _, err := g.call(t.Context(), tt.code, ref("c")); (err != nil) != (tt.op != "") {
			t.Errorf("%s: %v", tt.code, err)
		}
		if got := g.state(); got != tt.want {
			t.Errorf("after %s: container is %s, want %s", tt.code, got, tt.want)
		}
	}
}

// TestEndDuringOperation ends the init process while an operation has the
// container, which is stopped then, whatever becomes of the operation.
func TestEndDuringOperation(t *testing.T) {
	for _, tt := range []struct {
		op      string
		code    hyperstart.Code
		prepare func(g *guest) *proc
	}{
		{fake.Start, hyperstart.StartContainer, func(g *guest) *proc { return g.create("c") }},
		{fake.Pause, hyperstart.PauseContainer, func(g *guest) *proc { return g.run("c") }},
		{fake.Resume, hyperstart.ResumeContainer, func(g *guest) *proc {
			p := g.run("c")
			g.ok(hyperstart.PauseContainer, ref("c"))
			return p
		}},
	} {
		t.Run(tt.op, func(t *testing.T) {
			g := newGuest(t)
			p := tt.prepare(g)
			entered, release := g.runtime.Hold(tt.op)
			done := g.begin(tt.code, ref("c"))
			<-entered
			g.ok(hyperstart.KillContainer, killOf("c", 9, false))
			if got := p.exit(); got != 137 {
				t.Errorf("exit status %d, want 137", got)
			}
			release()
			if err := <-done; err == nil {
				t.Errorf("%s of a container that has ended succeeded", tt.op)
			}
			if got := g.state(); got != stateStopped {
				t.Errorf("container is %s", got)
			}
			g.ok(hyperstart.RemoveContainer, ref("c"))
		})
	}
}

// TestRemove: a running container is refused, a created one is ended, and a
// removal that fails can be tried again.
func TestRemove(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	g.refuse(hyperstart.RemoveContainer, ref("c"), hyperstart.ClassFailedPrecondition, "container c is running")
	p.fake.Exit(0)
	p.exit()
	g.runtime.Fail(fake.Delete, errors.New("busy"))
	if _, err := g.call(t.Context(), hyperstart.RemoveContainer, ref("c")); err == nil || err.Error() != "remove container c: busy" {
		t.Errorf("got %v", err)
	}
	if got := g.state(); got != stateStopped {
		t.Errorf("container is %s", got)
	}
	g.ok(hyperstart.RemoveContainer, ref("c"))
	g.refuse(hyperstart.RemoveContainer, ref("c"), hyperstart.ClassNotFound, "no container c")

	created := g.create("d")
	g.ok(hyperstart.RemoveContainer, ref("d"))
	if got := created.exit(); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
}

// TestRemoveWithOutput removes a container whose output nobody takes.
func TestRemoveWithOutput(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	p.noCredit()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = p.fake.Stdout.Write(make([]byte, 2*hyperstart.CreditWindow))
	}()
	g.await("a whole window", func() bool {
		s := g.streams[p.req.Stdio]
		return s != nil && len(s.data) == hyperstart.CreditWindow
	})
	g.ok(hyperstart.KillContainer, killOf("c", 9, false))
	<-written
	c, err := g.agent.containers.find("c")
	if err != nil {
		t.Fatal(err)
	}
	init, err := c.process(hyperstart.InitProcess)
	if err != nil {
		t.Fatal(err)
	}
	<-init.exited
	g.ok(hyperstart.RemoveContainer, ref("c"))
	if got := p.exit(); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
}

func TestKill(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	e := g.exec("e")
	for _, f := range []*proc{p, e} {
		f.fake.Ignore(unix.SIGTERM)
		f.fake.Ignore(unix.SIGUSR1)
	}
	g.ok(hyperstart.KillContainer, killOf("c", int(unix.SIGTERM), false))
	g.ok(hyperstart.KillContainer, killOf("c", int(unix.SIGUSR1), true))
	g.ok(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "c", Process: "e", Signal: 15})
	if diff := cmp.Diff([]unix.Signal{unix.SIGTERM, unix.SIGUSR1}, p.fake.Signals()); diff != "" {
		t.Errorf("signals of init (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]unix.Signal{unix.SIGUSR1, unix.SIGTERM}, e.fake.Signals()); diff != "" {
		t.Errorf("signals of exec (-want +got):\n%s", diff)
	}
	g.refuse(hyperstart.KillContainer, killOf("c", 65, false), hyperstart.ClassInvalidArgument, "signal 65")
	g.refuse(hyperstart.KillContainer, killOf("none", 9, false), hyperstart.ClassNotFound, "no container none")
	g.refuse(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "c", Process: "x", Signal: 9}, hyperstart.ClassNotFound, "no process x")
	g.ok(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "c", Process: "e", Signal: 9})
	if got := e.exit(); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
	g.ok(hyperstart.KillContainer, killOf("c", 9, true))
	if got := p.exit(); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
	g.refuse(hyperstart.KillContainer, killOf("c", 9, false), hyperstart.ClassNotFound, "already finished")
	g.refuse(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "c", Process: "init", Signal: 9}, hyperstart.ClassNotFound, "already finished")
}

func TestUpdateAndStats(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	e := g.exec("e")
	update := hyperstart.UpdateContainerRequest{Container: "c", Resources: json.RawMessage(`{"pids":{"limit":7}}`)}
	g.ok(hyperstart.UpdateContainer, update)
	g.refuse(hyperstart.UpdateContainer, hyperstart.UpdateContainerRequest{Container: "c", Resources: json.RawMessage(`3`)}, hyperstart.ClassInvalidArgument, "decode")
	var stats hyperstart.Stats
	if err := json.Unmarshal(g.ok(hyperstart.StatsContainer, ref("c")), &stats); err != nil || stats.PIDsCurrent != 2 {
		t.Errorf("got %+v, %v", stats, err)
	}
	var list hyperstart.ProcessList
	if err := json.Unmarshal(g.ok(hyperstart.ListProcesses, ref("c")), &list); err != nil {
		t.Fatal(err)
	}
	want := []hyperstart.ProcessInfo{{PID: p.fake.PID, Process: "init"}, {PID: e.fake.PID, Process: "e"}}
	if diff := cmp.Diff(want, list.Processes); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
	p.fake.Exit(0)
	p.exit()
	g.refuse(hyperstart.UpdateContainer, update, hyperstart.ClassFailedPrecondition, "container c is stopped")
}

func TestBeforePod(t *testing.T) {
	g := newGuest(t)
	a := &Agent{booted: make(chan struct{})}
	close(a.booted)
	a.containers = &containers{podReady: a.podReady}
	before := g.agent
	defer func() { g.agent = before }()
	g.agent = a
	g.refuse(hyperstart.NewContainer, g.createRequest("c", g.newProc("")), hyperstart.ClassFailedPrecondition, "pod is not started")
	a.bootErr = errors.New("no /dev")
	g.refuse(hyperstart.NewContainer, g.createRequest("c", g.newProc("")), hyperstart.ClassUnavailable, "no /dev")
	g.refuse(hyperstart.SetupRoute, hyperstart.Routes{}, hyperstart.ClassUnavailable, "no /dev")
}
