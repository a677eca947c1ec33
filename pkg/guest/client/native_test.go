package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// payloadCase is one call and what the guest gets for it.
type payloadCase struct {
	name string
	call func(ctx context.Context, g client.Guest, s client.Session) error
	want []string
}

func execOf(id string) client.Exec {
	return client.Exec{Container: "c", ID: id, Process: &specs.Process{Args: []string{"ls"}, Cwd: "/", ApparmorProfile: "x", SelinuxLabel: "y"}}
}

// TestNativePayloads: each call is one command, with nothing that the guest
// does not know.
func TestNativePayloads(t *testing.T) {
	const spec = `{"ociVersion":"1.0.2","process":{"consoleSize":{"height":24,"width":80},"user":{"uid":0,"gid":0,"additionalGids":[3]},"args":["sh","-c","a<b"],"env":["A=b=c","D"],"cwd":"/"},"root":{"path":"/run/ccv2/shared/c/rootfs"},"linux":{"namespaces":[{"type":"pid"}]}}`
	for _, tt := range []payloadCase{
		{"sync", func(ctx context.Context, g client.Guest, _ client.Session) error { return g.Sync(ctx) }, []string{"PING"}},
		{"interface", func(ctx context.Context, g client.Guest, _ client.Session) error {
			return g.SetInterface(ctx, hyperstart.Interface{NewDevice: "eth0", MAC: "m", NoARP: true})
		}, []string{`SETUPINTERFACE {"newDeviceName":"eth0","macAddr":"m","noArp":true}`}},
		{"routes", func(ctx context.Context, g client.Guest, _ client.Session) error {
			return g.SetRoutes(ctx, hyperstart.Routes{Routes: []hyperstart.Route{}})
		}, []string{`SETUPROUTE {"routes":[]}`}},
		{"create", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.CreateContainer(ctx, s, client.Container{ID: "c", Spec: newSpec(), Binds: []client.Bind{{Source: "x"}}})
		}, []string{`NEWCONTAINER {"id":"c","process":{"id":"init","stderr":4,"stdio":3,"terminal":false},"spec":` + spec + `}`}},
		{"create with terminal", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.CreateContainer(ctx, s, client.Container{ID: "c", Spec: newSpec(), Terminal: true})
		}, []string{`NEWCONTAINER {"id":"c","process":{"columns":80,"id":"init","rows":24,"stdio":3,"terminal":true},"spec":` + spec + `}`}},
		{"start", func(ctx context.Context, g client.Guest, _ client.Session) error { return g.StartContainer(ctx, "c") }, []string{`STARTCONTAINER {"container":"c"}`}},
		{"remove", func(ctx context.Context, g client.Guest, _ client.Session) error { return g.RemoveContainer(ctx, "c") }, []string{`REMOVECONTAINER {"container":"c"}`}},
		{
			"exec", func(ctx context.Context, g client.Guest, s client.Session) error {
				return g.Exec(ctx, s, execOf("init"))
			},
			[]string{`EXECCMD {"container":"c","process":{"id":"exec-init","oci":{"user":{"uid":0,"gid":0},"args":["ls"],"cwd":"/"},"stderr":4,"stdio":3,"terminal":false}}`},
		},
		{"forward", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.(client.Forwarder).Forward(ctx, s, 80)
		}, []string{`EXECCMD {"container":"pod","process":{"id":"forward-1","port":80,"stderr":4,"stdio":3,"terminal":false}}`}},
		{"update", func(ctx context.Context, g client.Guest, _ client.Session) error {
			return g.Update(ctx, "c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}})
		}, []string{`UPDATECONTAINER {"container":"c","resources":{"cpu":{"cpus":"0"}}}`}},
		{"pause", func(ctx context.Context, g client.Guest, _ client.Session) error { return g.Pause(ctx, "c") }, []string{`PAUSECONTAINER {"container":"c"}`}},
		{"resume", func(ctx context.Context, g client.Guest, _ client.Session) error { return g.Resume(ctx, "c") }, []string{`RESUMECONTAINER {"container":"c"}`}},
		{"stop", func(ctx context.Context, g client.Guest, _ client.Session) error {
			if synced, err := g.StopPod(ctx); !synced || err != nil {
				return errors.Join(err, errors.New("not synced"))
			}
			return nil
		}, []string{"DESTROYPOD"}},
		{"real-time signal", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.Signal(ctx, s, client.Target{Container: "c"}, 34)
		}, []string{`KILLCONTAINER {"container":"c","signal":34,"allProcesses":false}`}},
		{"signal to all", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.Signal(ctx, s, client.Target{Container: "c", All: true}, 9)
		}, []string{`KILLCONTAINER {"container":"c","signal":9,"allProcesses":true}`}},
		{"real-time signal to an exec process", func(ctx context.Context, g client.Guest, s client.Session) error {
			return g.Signal(ctx, s, client.Target{Container: "c", ExecID: "e"}, 31)
		}, []string{`SIGNALPROCESS {"container":"c","process":"exec-e","signal":31}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{}).start()
			if err := tt.call(t.Context(), f.Guest, f.session()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, f.sent(1)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNativeSignals through a session go to the process that has it.
func TestNativeSignals(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{}).start()
	first := f.container()
	second := f.session()
	if err := f.Exec(t.Context(), second, execOf("e")); err != nil {
		t.Fatal(err)
	}
	if err := f.Signal(t.Context(), first, client.Target{Container: "c"}, 30); err != nil {
		t.Error(err)
	}
	if err := f.Signal(t.Context(), second, client.Target{Container: "c", ExecID: "e"}, 15); err != nil {
		t.Error(err)
	}
	if err := second.Resize(t.Context(), 25, 81); err != nil {
		t.Error(err)
	}
	want := []string{
		`KILLCONTAINER {"container":"c","signal":30,"allProcesses":false}`,
		`SIGNALPROCESS {"container":"c","process":"exec-e","signal":15}`,
		`WINSIZE {"seq":5,"row":25,"column":81}`,
	}
	if diff := cmp.Diff(want, f.sent(3)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	f.wire.Exit(3, 17)
	<-first.Done()
	if status, err := first.Exit(); status != 17 || err != nil {
		t.Errorf("exit %d, %v", status, err)
	}
}

func TestNativeStartPod(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{})
	err := f.StartPod(t.Context(), client.Pod{DNS: []string{"1.1.1.1"}, ShareType: "9p", Sysctls: map[string]string{"a": "b"}, ShmSize: 5})
	if err != nil {
		t.Fatal(err)
	}
	got := f.sent(0)[0]
	head, rest, _ := strings.Cut(got, `"clock":`)
	_, tail, _ := strings.Cut(rest, ",")
	if want := `STARTPOD {"hostname":"localhost","shareDir":"hyperShared","dns":["1.1.1.1"],"shareType":"9p",` + `"sysctls":{"a":"b"},"shmSize":5}`; head+tail != want {
		t.Errorf("got %s", got)
	}
}

func TestNativeAnswers(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		switch code {
		case hyperstart.StatsContainer:
			return hyperstart.Ack, []byte(`{"memoryCurrent":5}`)
		case hyperstart.ListProcesses:
			return hyperstart.Ack, []byte(`{"processes":[{"pid":7,"process":"init"},{"pid":8,"process":"exec-e"},{"pid":9},{"pid":10,"process":"forward-1"}]}`)
		case hyperstart.AdjustClock:
			return hyperstart.Ack, []byte(`{"now":1000000007}`)
		default:
			return hyperstart.Ack, nil
		}
	}, client.Options{}).start()
	now, err := f.Guest.(client.Clock).AdjustClock(t.Context(), hyperstart.AdjustClockRequest{Step: -5})
	if err != nil || !now.Equal(time.Unix(1, 7)) {
		t.Errorf("time %v, %v", now, err)
	}
	if diff := cmp.Diff([]string{`ADJUSTCLOCK {"step":-5}`}, f.sent(1)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	for _, pages := range []bool{false, true} {
		if err := f.Guest.(interface {
			DropCaches(ctx context.Context, pages bool) error
		}).DropCaches(t.Context(), pages); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"DROPCACHES {}", `DROPCACHES {"pages":true}`}, f.sent(2)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	stats, err := f.Stats(t.Context(), "c")
	if err != nil || stats.MemoryCurrent != 5 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	processes, err := f.Processes(t.Context(), "c")
	want := []client.ProcessInfo{{PID: 7, Init: true}, {PID: 8, ExecID: "e"}, {PID: 9}, {PID: 10}}
	if diff := cmp.Diff(want, processes); diff != "" || err != nil {
		t.Errorf("%v, processes (-want +got):\n%s", err, diff)
	}
}

// TestErrorsHaveClasses: of the guest's errors, and the status of what could
// not be started.
func TestErrorsHaveClasses(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		switch code {
		case hyperstart.StartContainer:
			return hyperstart.Error, []byte(`{"class":"not_found","message":"no such file","exitStatus":127}`)
		case hyperstart.ExecCmd:
			return hyperstart.Error, []byte(`{"class":"resource_exhausted","message":"too many"}`)
		default:
			return hyperstart.Ack, nil
		}
	}, client.Options{}).start()
	err := f.StartContainer(t.Context(), "c")
	if !errdefs.IsNotFound(err) || err.Error() != "proxy: Hyper: guest: STARTCONTAINER: no such file" {
		t.Errorf("error %v", err)
	}
	if status, ok := client.ExitStatus(err); status != 127 || !ok {
		t.Errorf("status %d, %v", status, ok)
	}
	err = f.Exec(t.Context(), f.session(), execOf("e"))
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("error %v", err)
	}
	if status, ok := client.ExitStatus(err); ok {
		t.Errorf("status %d", status)
	}
}

// TestGate: it is asked for commands after StartPod, and for StopPod never.
func TestGate(t *testing.T) {
	refused := errors.New("refused")
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{Gate: func() error { return refused }})
	if err := f.SetRoutes(t.Context(), hyperstart.Routes{}); err != nil {
		t.Error(err)
	}
	f.start()
	if err := f.SetRoutes(t.Context(), hyperstart.Routes{}); !errors.Is(err, refused) || err.Error() != "setuproute: refused" {
		t.Errorf("error %v", err)
	}
	if err := f.CreateContainer(t.Context(), f.session(), client.Container{ID: "c", Spec: newSpec()}); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	if _, err := f.StopPod(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCallTimeout bounds commands, and only after StartPod.
func TestCallTimeout(t *testing.T) {
	silent := make(chan struct{})
	defer close(silent)
	f := newFixture(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.StatsContainer || code == hyperstart.KillContainer {
			<-silent
		}
		return hyperstart.Ack, nil
	}, client.Options{CallTimeout: 50 * time.Millisecond})
	f.start()
	if _, err := f.Stats(t.Context(), "c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stats: %v", err)
	}
	s := f.container()
	if err := f.Signal(t.Context(), s, client.Target{Container: "c"}, 9); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("signal: %v", err)
	}
}

// TestMutationsWaitForTheirTurn: no more than 32 at once.
func TestMutationsWaitForTheirTurn(t *testing.T) {
	hold := make(chan struct{})
	f := newFixture(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.PauseContainer {
			<-hold
		}
		return hyperstart.Ack, nil
	}, client.Options{}).start()
	const limit = 32
	done := make(chan error, limit)
	for range limit {
		go func() { done <- f.Pause(t.Context(), "c") }()
	}
	f.wire.WaitCommand(hyperstart.PauseContainer, limit)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Pause(ctx, "c"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for 32 earlier commands") {
		t.Errorf("error %v", err)
	}
	if err := f.Sync(t.Context()); err != nil { // a question is not held up
		t.Error(err)
	}
	close(hold)
	for range limit {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestEvents: of containers and their processes, and no others.
func TestEvents(t *testing.T) {
	got := make(chan string, 10)
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{Events: client.Events{
		OOM: func(container string) { got <- "oom " + container },
		Exited: func(container, execID string, status uint8) {
			got <- container + "/" + execID + string('0'+rune(status))
		},
		Lost: func(err error) { got <- "lost: " + err.Error() },
	}}).start()
	for _, event := range []string{
		`{"kind":"oom","container":"c"}`,
		`{"kind":"exited","container":"c","process":"init","status":1}`,
		`{"kind":"exited","container":"c","process":"exec-e","status":2}`,
		`{"kind":"exited","container":"c","process":"forward-1","status":3}`,
		`{"kind":"exited","container":"c","process":"exec-","status":4}`,
		`{"kind":"other","container":"c"}`,
	} {
		f.wire.Say(hyperstart.Event, []byte(event))
	}
	if err := f.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oom c", "c/1", "c/e2"} {
		if event := <-got; event != want {
			t.Errorf("event %q, want %q", event, want)
		}
	}
	if len(got) != 0 {
		t.Errorf("one more: %s", <-got)
	}
	f.wire.Close()
	if event := <-got; !strings.HasPrefix(event, "lost: ") {
		t.Errorf("event %q", event)
	}
}

// TestDialEndsWithItsContext: a guest that does not get ready is left alone.
func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{})
	_, ctl, tty := newGuest(t, func(hyperstart.Code, []byte) (hyperstart.Code, []byte) { return 0, nil })
	cancel()
	if _, err := client.Dial(ctx, client.Options{Server: f.server, VM: "other", Ctl: ctl, TTY: tty}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := ctl.Write(nil); err == nil {
		t.Error("the ports are still open")
	}
}
