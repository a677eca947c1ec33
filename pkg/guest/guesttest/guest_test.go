package guesttest_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
)

func session(t *testing.T, g *guesttest.Guest) client.Session {
	t.Helper()
	s, err := g.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, g *guesttest.Guest, id string, args ...string) client.Session {
	t.Helper()
	s := session(t, g)
	spec := &specs.Spec{Process: &specs.Process{Args: args}}
	if err := g.CreateContainer(t.Context(), s, client.Container{ID: id, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	return s
}

func exitOf(t *testing.T, s client.Session) uint8 {
	t.Helper()
	<-s.Done()
	status, err := s.Exit()
	if err != nil {
		t.Error(err)
	}
	return status
}

// TestLife: a container and an exec process, from their creation to the exits.
func TestLife(t *testing.T) {
	g := guesttest.New(guesttest.Options{})
	s := create(t, g, "c")
	if err := g.StartContainer(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	e := session(t, g)
	if err := g.Exec(t.Context(), e, client.Exec{Container: "c", ID: "e", Process: &specs.Process{Args: []string{"sh"}}}); err != nil {
		t.Fatal(err)
	}
	p := g.Process(t.Context(), "c", "e")
	p.Stdout("hello")
	if err := e.WriteStdin(t.Context(), strings.NewReader("input")); err != nil {
		t.Error(err)
	}
	_ = e.CloseStdin()
	if text, err := p.WaitStdin(t.Context()); text != "input" || err != nil {
		t.Errorf("stdin %q, %v", text, err)
	}
	list, err := g.Processes(t.Context(), "c")
	if diff := cmp.Diff([]client.ProcessInfo{{PID: 101, Init: true}, {PID: 102, ExecID: "e"}}, list); diff != "" || err != nil {
		t.Errorf("%v, processes (-want +got):\n%s", err, diff)
	}
	if err := g.RemoveContainer(t.Context(), "c"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed while it runs: %v", err)
	}
	g.Process(t.Context(), "c", "").Exit(3)
	if first, second := exitOf(t, s), exitOf(t, e); first != 3 || second != 137 {
		t.Errorf("exits %d, %d", first, second)
	}
	var out bytes.Buffer
	if _, err := e.Stdout().WriteTo(&out); out.String() != "hello" || err != nil {
		t.Errorf("stdout %q, %v", out.String(), err)
	}
	if err := g.Signal(t.Context(), s, client.Target{Container: "c"}, 9); !errdefs.IsNotFound(err) {
		t.Errorf("signal: %v", err)
	}
	if err := g.RemoveContainer(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	want := []string{
		"OpenSession", "CreateContainer c", "StartContainer c", "OpenSession", "Exec c/e", "Processes c",
		"RemoveContainer c", "Signal c 9", "RemoveContainer c",
	}
	if diff := cmp.Diff(want, g.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestArgs(t *testing.T) {
	g := guesttest.New(guesttest.Options{})
	for _, tt := range []struct {
		args   []string
		start  uint8 // status of the failure to start
		status uint8
		out    string
	}{
		{args: []string{"exit", "5"}, status: 5},
		{args: []string{"say", "hi"}, out: "hi"},
		{args: []string{"missing"}, start: 127, status: 127},
	} {
		s := create(t, g, tt.args[0], tt.args...)
		err := g.StartContainer(t.Context(), tt.args[0])
		if status, _ := client.ExitStatus(err); status != tt.start {
			t.Errorf("%s: %v", tt.args, err)
		}
		var out bytes.Buffer
		_, _ = s.Stdout().WriteTo(&out)
		if status := exitOf(t, s); status != tt.status || out.String() != tt.out {
			t.Errorf("%s: exit %d, %q", tt.args, status, out.String())
		}
	}
	for args, want := range map[string][]int{"wait": {9}, "deaf": {9, 9}} {
		s := create(t, g, args, args)
		if err := g.StartContainer(t.Context(), args); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_ = g.Signal(t.Context(), s, client.Target{Container: args, All: true}, 9)
		}
		if diff := cmp.Diff(want, g.Process(t.Context(), args, "").Signals()); diff != "" {
			t.Errorf("%s: signals (-want +got):\n%s", args, diff)
		}
	}
}

// TestFaults: calls that fail or hang, and the loss of the guest.
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan error, 1)
		g := guesttest.New(guesttest.Options{Events: client.Events{Lost: func(err error) { lost <- err }}})
		s := create(t, g, "c")
		refused := errors.New("refused")
		g.Fail("Pause", refused)
		if err := g.Pause(t.Context(), "c"); !errors.Is(err, refused) {
			t.Errorf("pause: %v", err)
		}
		g.Fail("Pause", nil)
		if err := g.Pause(t.Context(), "c"); err != nil || !g.Paused("c") {
			t.Errorf("pause: %v", err)
		}
		release := g.Hang("Resume")
		resumed := make(chan error, 1)
		go func() { resumed <- g.Resume(t.Context(), "c") }()
		synctest.Wait()
		if len(resumed) != 0 {
			t.Error("resume does not hang")
		}
		release()
		if err := <-resumed; err != nil || g.Paused("c") {
			t.Errorf("resume: %v", err)
		}
		g.Hang("Stats")
		ctx, cancel := context.WithCancel(t.Context())
		stats := make(chan error, 1)
		go func() { _, err := g.Stats(ctx, "c"); stats <- err }()
		if err := g.WaitCall(t.Context(), "Stats c"); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-stats; !errors.Is(err, context.Canceled) {
			t.Errorf("stats: %v", err)
		}
		crashed := errors.New("crashed")
		g.Lose(crashed)
		if err := <-lost; !errors.Is(err, crashed) {
			t.Errorf("lost: %v", err)
		}
		<-s.Done()
		if _, err := s.Exit(); !errors.Is(err, client.ErrSessionLost) || !errors.Is(err, crashed) {
			t.Errorf("exit: %v", err)
		}
		if err := g.Sync(t.Context()); !errdefs.IsUnavailable(err) {
			t.Errorf("sync: %v", err)
		}
	})
}

// TestEvents reach the callbacks, and no callback is no failure.
func TestEvents(t *testing.T) {
	var got []string
	g := guesttest.New(guesttest.Options{})
	g.OOM("c")
	g.ExitEarly("c", "", 1)
	g.SetEvents(client.Events{
		OOM:    func(c string) { got = append(got, "oom "+c) },
		Exited: func(c, execID string, status uint8) { got = append(got, c+"/"+execID+string('0'+rune(status))) },
	})
	g.OOM("c")
	g.ExitEarly("c", "e", 1)
	if diff := cmp.Diff([]string{"oom c", "c/e1"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestForward: a forwarded connection is a process of its own.
func TestForward(t *testing.T) {
	g := guesttest.New(guesttest.Options{})
	s := session(t, g)
	if err := g.Forward(t.Context(), s, 80); err != nil {
		t.Fatal(err)
	}
	g.Forwarded(t.Context(), 80).Stdout("answer")
	if err := g.Signal(t.Context(), s, client.Target{}, 9); err != nil {
		t.Error(err)
	}
	if status := exitOf(t, s); status != 137 {
		t.Errorf("exit %d", status)
	}
	if _ = s.Close(); g.Sessions() != 0 {
		t.Error("the session is still open")
	}
}
