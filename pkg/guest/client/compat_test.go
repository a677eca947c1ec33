package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// originals are the dialects of the original guests.
var originals = []hyperstart.Dialect{hyperstart.DialectHyperhq, hyperstart.DialectClearC, hyperstart.DialectClearGo}

// TestCompatStart: NEWCONTAINER comes with the start, in the keys of the dialect.
func TestCompatStart(t *testing.T) {
	const process = `"additionalGroups":["3"],"args":["sh","-c","a<b"],%s"envs":[{"env":"A","value":"b=c"},{"env":"D","value":""}],"group":"2",%s"stdio":3,"terminal":true,"user":"1","workdir":"/"`
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: strings.Replace(strings.Replace(process, "%s", "", 1), "%s", `"id":"init",`, 1),
		hyperstart.DialectClearC:  strings.Replace(strings.Replace(process, "%s", `"columns":80,`, 1), "%s", `"rows":24,`, 1),
		hyperstart.DialectClearGo: strings.Replace(strings.Replace(process, "%s", "", 1), "%s", `"id":"init",`, 1),
	} {
		t.Run(dialect.String(), func(t *testing.T) {
			f := newFixture(t, dialect, nil, client.Options{}).start()
			s := f.session()
			c := client.Container{ID: "c", Spec: newSpec(), Terminal: true, Binds: []client.Bind{{Source: "c/1", Destination: "/d", ReadOnly: true}}}
			if dialect == hyperstart.DialectClearC { // it knows no other
				want = strings.NewReplacer(`"user":"1"`, `"user":"0"`, `"group":"2"`, `"group":"0"`).Replace(want)
			} else {
				c.Spec.Process.User.UID, c.Spec.Process.User.GID = 1, 2
			}
			if err := f.CreateContainer(t.Context(), s, c); err != nil {
				t.Fatal(err)
			}
			pause := client.Container{ID: "pause", Spec: newSpec(), Pause: true}
			pause.Spec.Root.Readonly = true
			if err := errors.Join(f.CreateContainer(t.Context(), s, pause), f.RemoveContainer(t.Context(), "pause")); err != nil {
				t.Errorf("a pause container: %v", err)
			}
			if err := f.CreateContainer(t.Context(), s, c); !errdefs.IsAlreadyExists(err) {
				t.Errorf("second create: %v", err)
			}
			if got := f.sent(1); len(got) != 0 {
				t.Errorf("before the start: %s", got)
			}
			if err := f.StartContainer(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
			if err := f.StartContainer(t.Context(), "c"); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("second start: %v", err)
			}
			message := `NEWCONTAINER {"fsmap":[{"source":"c/1","path":"/d","readOnly":true,"dockerVolume":false}],"id":"c","image":"c","process":{` + want + `},"rootfs":"rootfs"}`
			if diff := cmp.Diff([]string{message}, f.sent(1)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if err := f.RemoveContainer(t.Context(), "c"); err != nil {
				t.Error(err)
			}
			removed := []string{`REMOVECONTAINER {"container":"c"}`}
			if dialect == hyperstart.DialectHyperhq {
				removed = nil
			}
			if diff := cmp.Diff(removed, f.sent(2)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompatExec(t *testing.T) {
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: `"group":"0","id":"exec-e",`,
		hyperstart.DialectClearC:  `"group":"0",`,
		hyperstart.DialectClearGo: `"group":"0","id":"exec-e",`,
	} {
		f := newFixture(t, dialect, nil, client.Options{}).start()
		if err := f.Exec(t.Context(), f.session(), execOf("e")); err != nil {
			t.Fatal(err)
		}
		message := `EXECCMD {"container":"c","process":{"args":["ls"],` + want + `"stderr":4,"stdio":3,"terminal":false,"user":"0","workdir":"/"}}`
		if diff := cmp.Diff([]string{message}, f.sent(1)); diff != "" {
			t.Errorf("%s: commands (-want +got):\n%s", dialect, diff)
		}
	}
}

// TestCompatNetwork: STARTPOD says what was set before, and afterwards nothing
// can be changed.
func TestCompatNetwork(t *testing.T) {
	for dialect, want := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: `[{"device":"eth0","ipAddresses":[{"ipAddress":"10.0.0.2","netMask":"24"}],"mtu":1500},{"device":"eth1","newDeviceName":"net1"}]`,
		hyperstart.DialectClearGo: `[{"newDeviceName":"eth0","ipAddresses":[{"ipAddress":"10.0.0.2","netMask":"24"}],"mtu":1500,"macAddr":"a"},{"newDeviceName":"net1","macAddr":"b"}]`,
	} {
		t.Run(dialect.String(), func(t *testing.T) {
			var warnings []string
			f := newFixture(t, dialect, nil, client.Options{Warn: func(s string) { warnings = append(warnings, s) }})
			for _, i := range []hyperstart.Interface{
				{NewDevice: "eth0", MAC: "a"},
				{NewDevice: "net1", MAC: "b", IPAddresses: []hyperstart.Address{{IP: "fe80::1", Mask: "64"}, {IP: "10.1.0.1", Mask: "32", Peer: "10.1.0.2"}}},
				{NewDevice: "eth0", MAC: "a", MTU: 1500, IPAddresses: []hyperstart.Address{{IP: "10.0.0.2", Mask: "24"}, {IP: "fd00::2", Mask: "64"}}},
			} {
				if err := f.SetInterface(t.Context(), i); err != nil {
					t.Fatal(err)
				}
			}
			err := f.SetRoutes(t.Context(), hyperstart.Routes{Routes: []hyperstart.Route{
				{Dest: "10.0.0.0/24", Device: "eth0", Protocol: 2},
				{Dest: "default", Gateway: "10.0.0.1", Device: "eth0", Metric: 5},
				{Dest: "10.9.0.0/16", Type: hyperstart.RouteBlackhole},
				{Dest: "fd00::/64", Device: "eth0"},
			}})
			if err != nil {
				t.Fatal(err)
			}
			f.start()
			message := `STARTPOD {"hostname":"localhost","shareDir":"hyperShared","interfaces":` + want + `,"routes":[{"dest":"default","gateway":"10.0.0.1","device":"eth0"}]}`
			if diff := cmp.Diff([]string{message}, f.sent(0)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			warning := "a guest of dialect " + dialect.String() + " cannot have: address fd00::2, address 10.1.0.1, route 10.9.0.0/16, route fd00::/64"
			if diff := cmp.Diff([]string{warning}, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if err := f.SetInterface(t.Context(), hyperstart.Interface{}); !errdefs.IsNotImplemented(err) {
				t.Errorf("interface: %v", err)
			}
			if err := f.SetRoutes(t.Context(), hyperstart.Routes{}); !errdefs.IsNotImplemented(err) {
				t.Errorf("routes: %v", err)
			}
		})
	}
}

// TestCompatLacks: by name.
func TestCompatLacks(t *testing.T) {
	for _, dialect := range originals {
		f := newFixture(t, dialect, nil, client.Options{}).start()
		for name, call := range map[string]func(context.Context) error{
			"updatecontainer": func(ctx context.Context) error { return f.Update(ctx, "c", &specs.LinuxResources{}) },
			"pausecontainer":  func(ctx context.Context) error { return f.Pause(ctx, "c") },
			"resumecontainer": func(ctx context.Context) error { return f.Resume(ctx, "c") },
			"statscontainer":  func(ctx context.Context) error { _, err := f.Stats(ctx, "c"); return err },
			"listprocesses":   func(ctx context.Context) error { _, err := f.Processes(ctx, "c"); return err },
		} {
			if err := call(t.Context()); !errdefs.IsNotImplemented(err) || !strings.HasPrefix(err.Error(), name+": ") {
				t.Errorf("%s: %s: %v", dialect, name, err)
			}
		}
		if _, ok := f.Guest.(client.Forwarder); ok {
			t.Errorf("%s forwards ports", dialect)
		}
		for what, weaken := range map[string]func(*specs.Spec){
			"a read-only root file system": func(s *specs.Spec) { s.Root.Readonly = true },
			"a hook in the container's":    func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}} },
			"a user namespace":             func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}} },
		} {
			spec := newSpec()
			weaken(spec)
			err := f.CreateContainer(t.Context(), f.session(), client.Container{ID: "c", Spec: spec})
			if !errdefs.IsNotImplemented(err) || !strings.HasPrefix(err.Error(), what) {
				t.Errorf("%s: %s: %v", dialect, what, err)
			}
		}
		if synced, err := f.StopPod(t.Context()); synced || err != nil {
			t.Errorf("%s: synced %v, %v", dialect, synced, err)
		}
	}
}

// TestCompatKilledBeforeStart: the guest is not asked, and the status is the signal's.
func TestCompatKilledBeforeStart(t *testing.T) {
	for _, dialect := range originals {
		for _, signal := range []int{9, 15} {
			f := newFixture(t, dialect, nil, client.Options{}).start()
			s := f.container()
			target := client.Target{Container: "c", All: true}
			if err := f.Signal(t.Context(), s, target, 10); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%s: %v", dialect, err)
			}
			if err := f.Signal(t.Context(), s, target, signal); err != nil {
				t.Fatal(err)
			}
			<-s.Done()
			if status, err := s.Exit(); int(status) != 128+signal || err != nil {
				t.Errorf("%s: exit %d, %v", dialect, status, err)
			}
			if err := f.StartContainer(t.Context(), "c"); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%s: start: %v", dialect, err)
			}
			if err := f.RemoveContainer(t.Context(), "c"); err != nil {
				t.Error(err)
			}
			if got := f.sent(1); len(got) != 0 {
				t.Errorf("%s: the guest got %s", dialect, got)
			}
		}
	}
}

// TestCompatSignals: a session's while it runs, a command while it is being
// started, because that comes after the start.
func TestCompatSignals(t *testing.T) {
	begun, hold := make(chan struct{}), make(chan struct{})
	f := newFixture(t, hyperstart.DialectClearGo, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.NewContainer {
			close(begun)
			<-hold
		}
		return hyperstart.Ack, nil
	}, client.Options{}).start()
	s := f.container()
	results := make(chan error, 2)
	go func() { results <- f.StartContainer(t.Context(), "c") }()
	<-begun
	go func() { results <- f.Signal(t.Context(), s, client.Target{Container: "c"}, 12) }()
	close(hold)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for _, signal := range []int{10, 40} {
		if err := f.Signal(t.Context(), s, client.Target{Container: "c"}, signal); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		`KILLCONTAINER {"container":"c","signal":12,"allProcesses":false}`,
		`KILLCONTAINER {"container":"c","signal":10,"allProcesses":false}`,
		`KILLCONTAINER {"container":"c","signal":40,"allProcesses":false}`,
	}
	if diff := cmp.Diff(want, f.sent(2)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

// TestCompatKillStatus: the C agents report 0 for a process that SIGKILL has ended.
func TestCompatKillStatus(t *testing.T) {
	for _, tt := range []struct {
		dialect        hyperstart.Dialect
		signal, status int
		want           uint8
	}{
		{hyperstart.DialectClearC, 9, 0, 137},
		{hyperstart.DialectClearC, 9, 3, 3},
		{hyperstart.DialectClearC, 15, 0, 0},
		{hyperstart.DialectClearGo, 9, 0, 0},
	} {
		f := newFixture(t, tt.dialect, nil, client.Options{}).start()
		s := f.container()
		if err := f.StartContainer(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if err := f.Signal(t.Context(), s, client.Target{Container: "c"}, tt.signal); err != nil {
			t.Fatal(err)
		}
		f.wire.Exit(3, byte(tt.status))
		<-s.Done()
		if status, err := s.Exit(); status != tt.want || err != nil {
			t.Errorf("%+v: exit %d, %v", tt, status, err)
		}
	}
}

// TestCompatResizeBeforeStart: the guest does not know of the process, so its
// terminal gets the size after the command that starts it.
func TestCompatResizeBeforeStart(t *testing.T) {
	for dialect, want := range map[hyperstart.Dialect][]string{
		hyperstart.DialectHyperhq: {
			`WINSIZE {"container":"c","process":"init","row":30,"column":90}`,
			`WINSIZE {"container":"c","process":"exec-e","row":41,"column":101}`,
		},
		hyperstart.DialectClearGo: {
			`WINSIZE {"seq":3,"row":30,"column":90}`,
			`WINSIZE {"seq":5,"row":41,"column":101}`,
		},
	} {
		f := newFixture(t, dialect, nil, client.Options{}).start()
		s, e := f.container(), f.session()
		for session, size := range map[client.Session][2]int{s: {30, 90}, e: {41, 101}} {
			if err := session.Resize(t.Context(), size[0], size[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.StartContainer(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if err := f.Exec(t.Context(), e, execOf("e")); err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(f.sent(1), func(c string) bool { return !strings.HasPrefix(c, "WINSIZE") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: commands (-want +got):\n%s", dialect, diff)
		}
	}
}
