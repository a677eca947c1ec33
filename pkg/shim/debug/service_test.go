package debug_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox/sandboxtest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/stdio"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // failures are what the tests are about
	goleak.VerifyTestMain(m)
}

// vm is a VM that can be looked at. It answers when answers is closed.
type vm struct {
	hypervisor.VM

	console *history.Log[hypervisor.ConsoleLine]
	answers chan struct{}
}

func (v *vm) PID() int                                      { return sandboxtest.VMMPID }
func (v *vm) Console() *history.Log[hypervisor.ConsoleLine] { return v.console }
func (v *vm) Devices() []string                             { return []string{"share"} }
func (v *vm) Version() string                               { return "1.2.3" }
func (v *vm) Status(ctx context.Context) (string, error)    { return "running", v.wait(ctx) }
func (v *vm) Inspect(ctx context.Context) ([]byte, error)   { return []byte("all of it"), v.wait(ctx) }

func (v *vm) Disks(ctx context.Context) ([]hypervisor.DiskStats, error) {
	return []hypervisor.DiskStats{{ID: "disk0", Reads: 7, ReadTime: time.Second}}, v.wait(ctx)
}
func (v *vm) wait(ctx context.Context) error { return wait(ctx, v.answers) }
func (g guest) GuestInfo(ctx context.Context) (hyperstart.GuestInfoReply, error) {
	if err := g.fails.Load(); err != nil {
		return hyperstart.GuestInfoReply{}, *err
	}
	return hyperstart.GuestInfoReply{Kernel: "6.1"}, wait(ctx, g.answers)
}

func (g guest) Stacks(ctx context.Context) ([]byte, error) {
	return []byte("goroutine 1"), wait(ctx, g.answers)
}

func (g guest) KernelTasks(ctx context.Context) ([]byte, error) {
	return []byte("task:init"), wait(ctx, g.answers)
}

// guest is a guest that tells about itself when answers is closed.
type guest struct {
	*guesttest.Guest

	answers chan struct{}
	fails   *atomic.Pointer[error] // what it answers when it is asked about itself
}

func wait(ctx context.Context, answers <-chan struct{}) error {
	select {
	case <-answers:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// machine is a machine in memory with a report.
type machine struct {
	*sandboxtest.Machine

	mu       sync.Mutex // guards report in tests with a heartbeat
	report   podvm.Report
	reported chan struct{} // a report was asked for, when somebody waits for that
}

func (m *machine) Report() podvm.Report {
	select {
	case m.reported <- struct{}{}:
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.report
}

// edit changes the report while others read it.
func (m *machine) edit(edit func(*podvm.Report)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edit(&m.report)
}

// fixture is a service, and a client of it.
type fixture struct {
	debugapi.DebugClient

	dir     string
	sandbox *sandbox.Sandbox
	machine *machine
	history *debug.History
	answers chan struct{}
	fails   atomic.Pointer[error] // of the guest
	tap     *wiretap.Tap
	calls   *calls.Counts
	end     func() error // of the service; it is called once more
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureThatBeats(t, debug.Heartbeat{})
}

func newFixtureThatBeats(t *testing.T, beat debug.Heartbeat, console ...string) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "ccv2-debug-") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{dir: dir, machine: &machine{Machine: sandboxtest.NewMachine(), reported: make(chan struct{})}, history: debug.NewHistory(), answers: make(chan struct{}), tap: new(wiretap.Tap), calls: new(calls.Counts)}
	f.machine.report = podvm.Report{
		Config: podvm.Config{ShareType: "virtiofs"}, Source: "template",
		Phases: []podvm.Phase{{Name: "done", Begin: time.Unix(1, 0), End: time.Unix(3, 0)}, {Name: "runs", Begin: time.Now()}},
		Guest:  guest{f.machine.Agent, f.answers, &f.fails},
		VM:     &vm{console: history.New[hypervisor.ConsoleLine](3), answers: f.answers},
	}
	for _, text := range console {
		f.machine.report.VM.(*vm).console.Add(hypervisor.ConsoleLine{Text: text})
	}
	f.sandbox = sandbox.New(sandbox.Options{Namespace: "test", ID: "pod", Sink: f.history, Machine: f.machine.Machine, KillTimeout: time.Minute})
	text, err := json.Marshal(store.State{Version: store.Version, Namespace: "test", ID: "pod", About: store.About{PodNamespace: "ns", Pod: "web"}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "state.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.end, err = debug.New(debug.Options{
		Namespace: "test", Version: "v1", Sandbox: f.sandbox, Machine: f.machine, History: f.history, Disks: disks{f.machine}, Heartbeat: beat, Tap: f.tap, Calls: f.calls,
	}).Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(f.dial(t))
	f.DebugClient = debugapi.NewDebugClient(client)
	t.Cleanup(func() {
		err := errors.Join(client.Close(), f.end(), f.sandbox.Stop(context.Background()), os.RemoveAll(dir))
		if err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(f.dir, debugapi.Socket))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// start starts a container whose process is described by args.
func (f *fixture) start(t *testing.T, id string, args ...string) *sandbox.Container {
	t.Helper()
	bundle := filepath.Join(f.dir, id)
	text, err := json.Marshal(specs.Spec{
		Process: &specs.Process{Args: args, Cwd: "/"}, Annotations: map[string]string{"io.kubernetes.cri.container-name": "name-" + id},
	})
	if err == nil {
		err = errors.Join(os.Mkdir(bundle, 0o700), os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.sandbox.Create(t.Context(), sandbox.CreateRequest{ID: id, Bundle: bundle, Stdio: stdio.Config{}})
	if err == nil {
		err = c.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fixture) info(t *testing.T, ask bool) (info debugapi.Info) {
	t.Helper()
	answer, err := f.Info(t.Context(), &debugapi.InfoRequest{Guest: ask})
	if err == nil {
		err = json.Unmarshal(answer.GetJson(), &info)
	}
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestInfo tells of a sandbox in every state.
func TestInfo(t *testing.T) {
	f := newFixture(t)
	if info := f.info(t, false); info.State != "new" || len(info.Containers) != 0 || info.Config != nil {
		t.Errorf("new: %+v", info)
	}
	f.start(t, "pod", "wait")
	close(f.answers)
	info := f.info(t, true)
	if info.State != "ready" || info.Namespace != "test" || info.ID != "pod" || info.Shim.Version != "v1" || info.Shim.PID != os.Getpid() {
		t.Errorf("ready: %+v", info)
	}
	if len(info.Containers) != 1 || info.Containers[0].Name != "name-pod" || info.Containers[0].State != "running" || info.Containers[0].Exit != nil {
		t.Errorf("containers: %+v", info.Containers)
	}
	if info.VM.Status != "running" || info.VM.Version != "1.2.3" || info.VM.Source != "template" || info.Guest.Kernel != "6.1" || len(info.Errors) > 0 {
		t.Errorf("vm %+v, guest %+v, errors %v", info.VM, info.Guest, info.Errors)
	}
	if d := info.VM.Disks; len(d) != 1 || d[0].ID != "disk0" || d[0].Reads != 7 || d[0].ReadNanoseconds != 1e9 {
		t.Errorf("disks %+v", d)
	}
	if !strings.Contains(string(info.Config), "virtiofs") {
		t.Errorf("config: %s", info.Config)
	}
	if len(info.Phases) != 2 || info.Phases[0].Nanoseconds != 2e9 || info.Phases[0].Running || !info.Phases[1].Running {
		t.Errorf("phases: %+v", info.Phases)
	}
	f.machine.Lose()
	f.machine.report.Lost = errors.New("it\x1b[2J died")
	if info := f.info(t, false); info.Lost != "it?[2J died" {
		t.Errorf("lost: %q", info.Lost)
	}
}

// TestSilence: a VMM and a guest that do not answer are named, and the rest is told.
func TestSilence(t *testing.T) {
	f := newFixture(t)
	info := f.info(t, true)
	for _, who := range []string{"vmm", "guest"} {
		if !strings.Contains(info.Errors[who], "does not answer within") {
			t.Errorf("%s: %q", who, info.Errors[who])
		}
	}
	if info.VM == nil || info.VM.Version == "" || len(info.Phases) == 0 {
		t.Errorf("got %+v", info)
	}
}

// receive receives all entries of a stream.
func receive(t *testing.T, stream interface {
	Recv() (*debugapi.Entry, error)
}, err error,
) (texts []string) {
	t.Helper()
	for err == nil {
		var e *debugapi.Entry
		if e, err = stream.Recv(); err == nil {
			texts = append(texts, fmt.Sprintf("%s%s%s lost %d", e.GetKind(), e.GetContainer(), e.GetText(), e.GetLost()))
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return texts
}

// TestConsole sends what was, from a time on, with how much is forgotten.
func TestConsole(t *testing.T) {
	f := newFixture(t)
	console := f.machine.report.VM.(*vm).console
	for i := range 5 {
		console.Add(hypervisor.ConsoleLine{Time: int64(i), Text: fmt.Sprint(i)})
	}
	stream, err := f.Console(t.Context(), &debugapi.LogRequest{})
	if got := strings.Join(receive(t, stream, err), ", "); got != "2 lost 2, 3 lost 0, 4 lost 0" {
		t.Errorf("all: %s", got)
	}
	stream, err = f.Console(t.Context(), &debugapi.LogRequest{Since: 4})
	if got := strings.Join(receive(t, stream, err), ", "); got != "4 lost 0" {
		t.Errorf("since: %s", got)
	}
	f.machine.report.VM = nil
	stream, err = f.Console(t.Context(), &debugapi.LogRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Errorf("without a vm: %v", err)
	}
}

// TestFollow sends what comes, and ends with its client.
func TestFollow(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := f.Events(ctx, &debugapi.LogRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	f.start(t, "pod", "wait")
	for _, want := range []string{"create", "start"} {
		e, err := stream.Recv()
		if err != nil || e.GetKind() != want || e.GetContainer() != "pod" {
			t.Fatalf("got %v, %v, want %s", e, err, want)
		}
	}
	f.history.Note("vm-paused", "a\x1bb")
	if e, err := stream.Recv(); err != nil || e.GetText() != "a?b" {
		t.Errorf("got %v, %v", e, err)
	}
	cancel()
	if e, err := stream.Recv(); err == nil {
		t.Errorf("after the end: %v", e)
	}
}

// TestEventsAreBounded: whatever happens, what is kept is not more.
func TestEventsAreBounded(t *testing.T) {
	f := newFixture(t)
	for i := range 1000 {
		f.history.Note("kind", fmt.Sprint(i))
	}
	stream, err := f.Events(t.Context(), &debugapi.LogRequest{})
	got := receive(t, stream, err)
	if len(got) != 256 || got[0] != "kind744 lost 744" || got[255] != "kind999 lost 0" {
		t.Errorf("%d events, from %q", len(got), got[0])
	}
}

// dump receives a dump, by part.
func (f *fixture) dump(t *testing.T) (texts, errs map[string]string) {
	t.Helper()
	texts, errs = map[string]string{}, map[string]string{}
	stream, err := f.Dump(t.Context(), &debugapi.DumpRequest{Tasks: true})
	for err == nil {
		var p *debugapi.Part
		if p, err = stream.Recv(); err == nil {
			texts[p.GetName()] += string(p.GetText())
			errs[p.GetName()] += p.GetError()
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return texts, errs
}

func TestDump(t *testing.T) {
	f := newFixture(t)
	close(f.answers)
	texts, errs := f.dump(t)
	for name, want := range map[string]string{
		"info.json": `"id": "pod"`, "shim-stacks.txt": "debug.(*Service).Dump", "vmm.txt": "all of it",
		"agent-stacks.txt": "goroutine 1", "guest-tasks.txt": "task:init",
	} {
		if !strings.Contains(texts[name], want) || errs[name] != "" {
			t.Errorf("%s: %.100q, %s", name, texts[name], errs[name])
		}
	}
	f.machine.report.Guest, f.machine.report.VM = nil, nil
	if texts, errs := f.dump(t); texts["shim-stacks.txt"] == "" || errs["vmm.txt"] == "" || errs["agent-stacks.txt"] == "" {
		t.Errorf("without a vm: errors %v", errs)
	}
}

var _ client.Guest = guest{}
