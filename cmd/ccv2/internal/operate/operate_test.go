package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// host is a directory of sandboxes.
type host struct {
	t   *testing.T
	dir string
}

func newHost(t *testing.T) host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the commands do")
	}
	dir, err := os.MkdirTemp("", "ccv2-ps-") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return host{t, dir}
}

// run runs a command.
func (h host) run(args ...string) (status int, stdout, stderr string) {
	h.t.Helper()
	var out, errs bytes.Buffer
	all := append([]string{args[0], "--state-dir", h.dir, "--timeout", "1s"}, args[1:]...)
	status = Run(Options{Stdout: &out, Stderr: &errs}, all)
	return status, out.String(), errs.String()
}

// self is this process as a record has it.
func (h host) self() store.Process {
	h.t.Helper()
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		h.t.Fatal(err)
	}
	var start uint64
	const field = 22 - 3
	if _, err := fmt.Sscan(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[field], &start); err != nil {
		h.t.Fatal(err)
	}
	return store.Process{Name: "shim", PID: os.Getpid(), Start: start}
}

// sandbox makes a record; its shim is this process, or dead.
func (h host) sandbox(id string, alive bool, about store.About) store.Dir {
	h.t.Helper()
	s := store.State{Namespace: "ns", ID: id, Created: time.Now(), Shim: store.Process{Name: "shim", PID: 4_000_000}, About: about}
	if alive {
		s.Shim = h.self()
	}
	d := store.DirOf(h.dir, "ns", id)
	if err := d.Create(s); err != nil {
		h.t.Fatal(err)
	}
	return d
}

// shim answers for a sandbox.
type shim struct {
	debugapi.DebugService

	info debugapi.Info
}

func (s shim) Info(context.Context, *debugapi.InfoRequest) (*debugapi.Document, error) {
	text, err := json.Marshal(s.info)
	return &debugapi.Document{Json: text}, err
}

func (s shim) Events(_ context.Context, _ *debugapi.LogRequest, out debugapi.Debug_EventsServer) error {
	return out.Send(&debugapi.Entry{Time: 1, Kind: "exit", Container: "c", Text: "a\x1b[2Jb", Lost: 3})
}

// serve serves a sandbox.
func (h host) serve(d store.Dir, info debugapi.Info) {
	h.t.Helper()
	l := h.listen(d)
	server, err := ttrpc.NewServer()
	if err != nil {
		h.t.Fatal(err)
	}
	debugapi.RegisterDebugService(server, shim{info: info})
	go func() { _ = server.Serve(context.Background(), l) }()
	h.t.Cleanup(func() { _ = server.Close() })
}

// listen takes connections, and answers none.
func (h host) listen(d store.Dir) net.Listener {
	h.t.Helper()
	l, err := net.Listen("unix", filepath.Join(d.Path(), debugapi.Socket))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestPs: a sandbox that answers, one that hangs, one that is dead, and one whose record
// cannot be read.
func TestPs(t *testing.T) {
	h := newHost(t)
	if status, stdout, _ := h.run("ps"); status != 0 || strings.Count(stdout, "\n") != 1 {
		t.Errorf("without sandboxes: status %d, %q", status, stdout)
	}
	h.serve(h.sandbox("lives", true, store.About{Pod: "p\x1b", PodNamespace: "q", CPUs: 2, MemoryMiB: 64}), debugapi.Info{
		State: "ready", Containers: []debugapi.Container{{ID: "lives", State: "running"}, {ID: "c", Name: "web", State: "exited"}},
	})
	h.listen(h.sandbox("hangs", true, store.About{}))
	h.sandbox("old", true, store.About{}) // of a release without the service
	h.sandbox("died", false, store.About{})
	broken := filepath.Join(h.dir, "ns", "broken")
	if err := errors.Join(os.Mkdir(broken, 0o700), os.WriteFile(filepath.Join(broken, "state.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := h.run("ps")
	if status != 0 || stderr != "" {
		t.Errorf("status %d, %s", status, stderr)
	}
	rows := strings.Split(stdout, "\n")
	for i, want := range [][]string{
		{"NAMESPACE"}, {"unknown"}, {"died", "dead"}, {"hangs", "hung"}, {"lives", "q/p?", "ready", "2×64 MiB", "web(exited)"}, {"old", "hung"},
	} {
		for _, cell := range want {
			if !strings.Contains(rows[i], cell) {
				t.Errorf("row %d does not have %q: %s", i, cell, rows[i])
			}
		}
	}
	for _, problem := range []string{"hangs: its shim", "ccv2 kill --force hangs", "old: its shim", "has no debug service", "died: its shim (pid 4000000) is dead", "read " + broken} {
		if !strings.Contains(stdout, problem) {
			t.Errorf("it does not say %q:\n%s", problem, stdout)
		}
	}
	var all []view
	status, stdout, _ = h.run("ps", "--json")
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || status != 0 || len(all) != 5 || all[3].State != "ready" || all[3].Memory == 0 {
		t.Errorf("json: status %d, %v: %s", status, err, stdout)
	}
}

// TestPsMany lists as many as a host has.
func TestPsMany(t *testing.T) {
	h := newHost(t)
	for i := range 200 {
		h.serve(h.sandbox(fmt.Sprint(i), true, store.About{}), debugapi.Info{State: "ready"})
	}
	begin := time.Now()
	status, stdout, _ := h.run("ps", "--timeout", "1m")
	if status != 0 || strings.Count(stdout, " ready ") != 200 {
		t.Errorf("status %d:\n%s", status, stdout)
	}
	t.Logf("200 in %s", time.Since(begin))
}

// TestFind finds a sandbox by what people know of it.
func TestFind(t *testing.T) {
	h := newHost(t)
	h.sandbox("abc1", false, store.About{Pod: "web", PodNamespace: "x"})
	h.sandbox("abc2", false, store.About{Pod: "web", PodNamespace: "y"})
	h.sandbox("abc", false, store.About{Pod: "db", PodNamespace: "y"})
	for name, want := range map[string]string{
		"abc1": "abc1", "abc": "abc", "x/web": "abc1", "db": "abc", "y/db": "abc",
		"": "is empty", "web": "can be any of abc1 (pod x/web), abc2 (pod y/web)", "ab": "can be any of", "no": "ccv2 ps lists",
	} {
		r, err := sandboxes.Find(h.dir, name)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && r.Saved.ID != want {
			t.Errorf("%s: %q, %v, want %q", name, r.Saved.ID, err, want)
		}
	}
}

// TestSilentShims: every command says why a shim does not answer, within its time.
func TestSilentShims(t *testing.T) {
	h := newHost(t)
	h.listen(h.sandbox("hangs", true, store.About{}))
	h.sandbox("died", false, store.About{})
	for _, command := range []string{"info", "console", "events", "dump", "kill", "shutdown", "trace", "log-level"} {
		for id, want := range map[string]string{"hangs": "does not answer", "died": "is dead"} {
			if status, _, stderr := h.run(command, id); status != sandboxes.StatusNoAnswer || !strings.Contains(stderr, want) {
				t.Errorf("%s %s: status %d, %s", command, id, status, stderr)
			}
		}
		if status, _, stderr := h.run(command); status != sandboxes.StatusUsage || !strings.Contains(stderr, "ccv2 "+command+" ID") {
			t.Errorf("%s: status %d, %s", command, status, stderr)
		}
	}
}

func TestEvents(t *testing.T) {
	h := newHost(t)
	h.serve(h.sandbox("s", true, store.About{}), debugapi.Info{})
	status, stdout, stderr := h.run("events", "s")
	if status != 0 || !strings.Contains(stdout, "a?[2Jb") || !strings.Contains(stdout, "3 older ones are forgotten") || strings.Contains(stdout, "\x1b") {
		t.Errorf("status %d: %q, %s", status, stdout, stderr)
	}
	if status, _, stderr := h.run("events", "s", "--since", "yesterday"); status != sandboxes.StatusUsage || !strings.Contains(stderr, "such as 10m") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// TestGCSpares: VMs that nobody can have are listed, and ended when they are to be.
func TestGCSpares(t *testing.T) {
	var out, errs strings.Builder
	var err error
	ended := false
	o := Options{Stdout: &out, Stderr: &errs, DeadSpares: func(_ context.Context, _ string, end bool) ([]Spare, error) {
		ended = end
		return []Spare{{Dir: "/run/pool/1.part", Made: time.Now().Add(-time.Minute), PID: os.Getpid()}}, err
	}}
	dir := newHost(t).dir
	for _, tt := range []struct {
		args   []string
		err    error
		status int
		want   string
	}{
		{args: []string{"gc"}, want: "1          false    /run/pool/1.part"},
		{args: []string{"gc", "--remove"}, want: "1          true     /run/pool/1.part"},
		{args: []string{"gc", "--remove"}, err: errors.New("not today"), status: sandboxes.StatusFailed, want: "1          false    /run/pool/1.part"},
		{args: []string{"gc"}, err: errdefs.ErrUnavailable, want: "left nothing"},
	} {
		out.Reset()
		err = tt.err
		status := Run(o, append(tt.args, "--state-dir", dir))
		if status != tt.status || !strings.Contains(out.String(), tt.want) || ended != (len(tt.args) > 1) {
			t.Errorf("%v: status %d, ended %v: %s%s", tt.args, status, ended, &out, &errs)
		}
	}
}

// TestGC removes what is dead, when it is told to, and nothing else.
func TestGC(t *testing.T) {
	h := newHost(t)
	dead, alive := h.sandbox("died", false, store.About{}), h.sandbox("lives", true, store.About{})
	there := func(d store.Dir) bool { _, err := os.Stat(d.Path()); return err == nil }
	status, stdout, _ := h.run("gc")
	if status != 0 || !strings.Contains(stdout, "died") || strings.Contains(stdout, "lives") || !there(dead) {
		t.Errorf("dry: status %d, %s", status, stdout)
	}
	if status, stdout, stderr := h.run("gc", "--remove"); status != 0 || there(dead) || !there(alive) {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if status, stdout, _ := h.run("gc"); status != 0 || !strings.Contains(stdout, "left nothing") {
		t.Errorf("again: status %d, %s", status, stdout)
	}
}

// TestSupport collects what there is, also of sandboxes that are dead or hang, and lists it.
func TestSupport(t *testing.T) {
	h := newHost(t)
	h.listen(h.sandbox("hangs", true, store.About{}))
	traced := filepath.Join(h.sandbox("died", false, store.About{}).Path(), store.SpansFile)
	if err := os.WriteFile(traced, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(h.dir, "out.tar.gz")
	status, stdout, stderr := h.run("support", "-o", out)
	if status != 0 {
		t.Fatalf("status %d, %s", status, stderr)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	list, err := exec.CommandContext(t.Context(), "tar", "-tzf", out).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, list)
	}
	for _, name := range []string{"MANIFEST", "host/proc/meminfo", "sandboxes/died/record.json", "sandboxes/died/spans.jsonl", "sandboxes/hangs/events.txt", "sandboxes/hangs/dump.error.txt"} {
		if !strings.Contains(string(list), "ccv2-support/"+name+"\n") {
			t.Errorf("there is no %s:\n%s", name, list)
		}
		if name != "MANIFEST" && !strings.Contains(stdout, name) {
			t.Errorf("it does not list %s", name)
		}
	}
	if status, _, _ := h.run("support", "-o", out); status == 0 {
		t.Error("it overwrites a file")
	}
}

func TestNeedRoot(t *testing.T) {
	if err := sandboxes.NeedRoot(0); err != nil {
		t.Error(err)
	}
	if err := sandboxes.NeedRoot(1000); sandboxes.StatusOf(err) != sandboxes.StatusNotRoot || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("got %v", err)
	}
}

// TestCompletion: the commands of the whole tool are completed.
func TestCompletion(t *testing.T) {
	var out bytes.Buffer
	o := Options{Stdout: &out, Stderr: &out, Others: []Other{{Name: "image", Usage: "build"}}}
	args := os.Args
	os.Args = []string{"ccv2", "--generate-shell-completion"} // the library looks there
	t.Cleanup(func() { os.Args = args })
	if status := Run(o, []string{"--generate-shell-completion"}); status != 0 || !strings.Contains(out.String(), "ps") || !strings.Contains(out.String(), "image") {
		t.Errorf("status %d: %s", status, out.String())
	}
	h := newHost(t)
	h.sandbox("some-id", false, store.About{Pod: "p", PodNamespace: "q"})
	if _, stdout, _ := h.run("info", "--generate-shell-completion"); !strings.Contains(stdout, "some-id") || !strings.Contains(stdout, "q/p") {
		t.Errorf("sandboxes are not completed: %s", stdout)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out.Reset()
		if status := Run(o, []string{"completion", shell}); status != 0 || !strings.Contains(out.String(), "ccv2") {
			t.Errorf("%s: status %d: %s", shell, status, out.String())
		}
	}
}
