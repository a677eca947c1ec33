package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestExec(t *testing.T) {
	g := newGuest(t)
	g.create("c")
	early := g.exec("e") // containerd's tests do it before the start
	early.fake.Exit(1)
	if got := early.exit(); got != 1 {
		t.Errorf("exit status %d, want 1", got)
	}
	g.start("c")
	first := g.exec("e") // the id is free
	g.refuse(hyperstart.ExecCmd, g.execRequest("c", g.newProc("e")), hyperstart.ClassAlreadyExists, "process e of container c exists")
	g.refuse(hyperstart.ExecCmd, g.execRequest("c", g.newProc("init")), hyperstart.ClassAlreadyExists, "process init of container c exists")
	g.refuse(hyperstart.ExecCmd, g.execRequest("c", g.newProc("../e")), hyperstart.ClassInvalidArgument, "not valid")
	g.refuse(hyperstart.ExecCmd, g.execRequest("none", g.newProc("e")), hyperstart.ClassNotFound, "no container none")
	g.refuse(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "c"}, hyperstart.ClassInvalidArgument, "process is needed")
	first.write("one")
	first.output("one")
	first.fake.Exit(0)
	first.exit()

	second := g.newProc("e")
	g.runtime.Fail(fake.Exec, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "no such program"))
	g.refuse(hyperstart.ExecCmd, g.execRequest("c", second), hyperstart.ClassInvalidArgument, "no such program")
	g.ok(hyperstart.ExecCmd, g.execRequest("c", second)) // neither the id nor the streams are in use
}

// TestForward starts a connection as a process of the container.
func TestForward(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	conn := g.newProc("forward-1")
	conn.req.Port = 80
	g.runtime.Fail(fake.Spawn, errors.New("no room"))
	if _, err := g.call(t.Context(), hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "c", Process: conn.req}); err == nil || err.Error() != "connect to port 80: no room" {
		t.Errorf("got %v", err)
	}
	g.ok(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "c", Process: conn.req})
	conn.fake = g.runtime.Process("c", "forward 80")
	conn.write("answer")
	conn.output("answer")
	p.fake.Exit(0)
	if got := conn.exit(); got != 137 {
		t.Errorf("the connection outlived its container: status %d", got)
	}
}

// TestExitOrder: the exit of an init process comes after those of the exec
// processes, whose ends it causes.
func TestExitOrder(t *testing.T) {
	g := newGuest(t)
	init := g.run("c")
	want := []uint64{}
	for _, id := range []string{"a", "b", "x"} {
		want = append(want, g.exec(id).req.Stdio)
	}
	other := g.run("other")
	init.fake.Exit(4)
	if got := init.exit(); got != 4 {
		t.Errorf("exit status %d, want 4", got)
	}
	other.fake.Exit(0)
	other.exit()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.exits) != 5 || g.exits[3] != init.req.Stdio || g.exits[4] != other.req.Stdio {
		t.Fatalf("exits of the sequences %v", g.exits)
	}
	slices.Sort(g.exits[:3])
	if diff := cmp.Diff(want, g.exits[:3]); diff != "" {
		t.Errorf("exits before that of init (-want +got):\n%s", diff)
	}
}

// TestExitAfterOutput: what a process has written is with the host when its exit
// is, however slow the host is.
func TestExitAfterOutput(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	output := strings.Repeat("0123456789abcdef", hyperstart.CreditWindow/8) // two windows
	go func() {
		_, _ = p.fake.Stdout.WriteString(output)
		p.fake.Exit(0)
	}()
	p.exit()
	g.mu.Lock()
	defer g.mu.Unlock()
	if got := string(g.streams[p.req.Stdio].data); got != output {
		t.Errorf("%d bytes preceded the exit, want %d", len(got), len(output))
	}
}

// TestExitAheadOfOutput has a descendant of an exec process keep its streams: the
// exit is reported ahead, its id is free, and what comes is still sent.
func TestExitAheadOfOutput(t *testing.T) {
	g := newGuest(t)
	init := g.run("c")
	p := g.exec("e")
	p.write("before")
	p.output("before")
	p.fake.ExitOnly(5)
	want := hyperstart.EventMessage{Kind: hyperstart.EventExited, Container: "c", Process: "e", Status: 5}
	if diff := cmp.Diff(want, <-g.events); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	g.refuse(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "c", Process: "e", Signal: 9}, hyperstart.ClassNotFound, "already finished")
	p.write(" and after")
	p.output("before and after")
	p.fake.Close()
	if got := p.exit(); got != 5 {
		t.Errorf("exit status %d, want 5", got)
	}

	held := g.exec("e")
	held.fake.ExitOnly(6)
	<-g.events
	again := g.exec("e")
	again.fake.Exit(7)
	if got := again.exit(); got != 7 {
		t.Errorf("exit status %d, want 7", got)
	}
	held.fake.Close()
	if got := held.exit(); got != 6 {
		t.Errorf("exit status %d, want 6", got)
	}
	init.fake.Exit(0)
	init.exit()
	if len(g.events) != 0 {
		t.Errorf("one more event: %+v", <-g.events)
	}
}

// TestOOMBeforeExit: the host can tell why the process has ended.
func TestOOMBeforeExit(t *testing.T) {
	g := newGuest(t)
	p := g.run("c")
	g.oomKills("c", 1)
	p.fake.Exit(137)
	p.exit()
	select {
	case e := <-g.events:
		if e.Kind != hyperstart.EventOOM || e.Container != "c" {
			t.Errorf("got event %+v", e)
		}
	default:
		t.Error("no event before the exit")
	}
}

func TestTerminal(t *testing.T) {
	g := newGuest(t)
	p := g.newProc("init")
	p.req.Terminal, p.req.Rows, p.req.Columns = true, 33, 99
	g.ok(hyperstart.NewContainer, g.createRequest("c", p))
	p.fake = g.runtime.Process("c", "init")
	size := func() [2]int {
		t.Helper()
		rows, columns, err := p.fake.Size()
		if err != nil {
			t.Fatal(err)
		}
		return [2]int{rows, columns}
	}
	if got := size(); got != [2]int{33, 99} {
		t.Errorf("size %v", got)
	}
	g.ok(hyperstart.WinSize, hyperstart.WinSizeBySeq{Seq: p.req.Stdio, Row: 44, Column: 111})
	if got := size(); got != [2]int{44, 111} {
		t.Errorf("size %v", got)
	}
	g.ok(hyperstart.WinSize, hyperstart.WinSizeByName{Container: "c", Process: "init", Row: 1, Column: 2})
	if got := size(); got != [2]int{1, 2} {
		t.Errorf("size %v", got)
	}
	g.ok(hyperstart.WinSize, hyperstart.WinSizeBySeq{Seq: 999, Row: 5, Column: 5}) // crossed the exit
	p.write("prompt")
	p.output("prompt")
	p.fake.Exit(0)
	if got := p.exit(); got != 0 {
		t.Errorf("exit status %d", got)
	}
}
