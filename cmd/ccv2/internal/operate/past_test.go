package operate

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func (s shim) Trace(_ context.Context, r *debugapi.TraceRequest, out debugapi.Debug_TraceServer) error {
	for i, m := range []*debugapi.Message{
		{},
		{Time: 1, Layer: uint32(wiretap.Ctl), Size: 10, Raw: hyperstart.AppendCtl(nil, hyperstart.Ping, []byte("\x1b["))},
		{Time: 2, Layer: uint32(wiretap.TTY), ToHost: true, Size: 17, Raw: hyperstart.AppendTTY(nil, 4, []byte("hello")), Lost: 7},
	} {
		if r.GetSecrets() && i == 1 {
			m.Raw = hyperstart.AppendCtl(nil, hyperstart.Ping, []byte("secret"))
		}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (s shim) LogLevel(_ context.Context, r *debugapi.LogLevelRequest) (*debugapi.LogLevelReply, error) {
	if r.GetLevel() == "loud" {
		return nil, errgrpc.ToGRPC(errdefs.ErrInvalidArgument)
	}
	return &debugapi.LogLevelReply{Before: "info"}, nil
}

// TestTrace prints what passes, or writes it to a file, which decode prints.
func TestTrace(t *testing.T) {
	h := newHost(t)
	h.serve(h.sandbox("s", true, store.About{}), debugapi.Info{})
	status, stdout, stderr := h.run("trace", "s")
	if lines := strings.Split(stdout, "\n"); status != 0 || len(lines) != 3 || !strings.Contains(lines[0], "PING") || !strings.Contains(lines[0], "?[") ||
		!strings.Contains(lines[1], "stream 4") || strings.Contains(stdout, "\x1b") || !strings.Contains(stderr, "7 messages came too fast") {
		t.Errorf("status %d: %q, %s", status, stdout, stderr)
	}
	for flag, want := range map[string]string{"--layer=tty": "hello", "--grep=PING": "PING", "--count=1": "PING", "--json": `"layer":"ctl"`, "--secrets": "secret"} {
		if status, stdout, _ := h.run("trace", flag, "s"); status != 0 || !strings.Contains(stdout, want) || strings.Contains(flag, "y") && strings.Count(stdout, "\n") != 1 {
			t.Errorf("%s: status %d, %q", flag, status, stdout)
		}
	}
	file := filepath.Join(h.dir, "trace.pcap")
	if status, stdout, stderr := h.run("trace", "s", "--write", file); status != 0 || stdout != "" {
		t.Errorf("to a file: status %d, %q, %s", status, stdout, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if status, stdout, stderr := h.run("decode", file, "--layer", "tty"); status != 0 || !strings.Contains(stdout, "hello") || strings.Contains(stdout, "PING") {
		t.Errorf("decode: status %d, %q, %s", status, stdout, stderr)
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"trace", "s", "--write", file}, 1, "file exists"},
		{[]string{"trace", "s", "--layer", "x"}, sandboxes.StatusUsage, "want ctl, tty or frame"},
		{[]string{"decode", "/dev/null"}, 1, "no file of ccv2 trace"},
		{[]string{"decode"}, sandboxes.StatusUsage, "want a file"},
		{[]string{"log-level", "s", "loud"}, 1, "invalid argument"},
		{[]string{"log-level"}, sandboxes.StatusUsage, "want the id"},
	} {
		if status, stdout, stderr := h.run(tt.args...); status != tt.status || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: status %d, %s%s", tt.args, status, stdout, stderr)
		}
	}
	if status, stdout, stderr := h.run("log-level", "s", "debug"); status != 0 || stdout != "info\n" {
		t.Errorf("log-level: status %d, %q, %s", status, stdout, stderr)
	}
}

// journal writes one, whose shim has died when there are no counters.
func (h host) journal(d store.Dir, id string, c *debugapi.Counters) {
	h.t.Helper()
	var text []byte
	for _, j := range []debugapi.Journal{
		{Sandbox: &debugapi.JournalSandbox{Namespace: "ns", ID: id, PodNamespace: "default", Pod: "web"}},
		{Event: &debugapi.JournalEvent{Time: 1, Kind: "create", Container: "c"}},
		{Event: &debugapi.JournalEvent{Time: 2e18, Kind: "vm-ended", Text: "panic\x1b[2J"}},
		{Counters: c},
	} {
		b, err := json.Marshal(j)
		if err != nil {
			h.t.Fatal(err)
		}
		text = append(append(text, b...), '\n')
		text = append(text, `{"event":{"ki{"event":{}}`+"\n"...) // there was no room for a line
	}
	text = append(text, `{"event":{"ki`...) // it has died while it wrote
	if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// TestPast: what has happened in sandboxes that are dead or have ended can be read.
func TestPast(t *testing.T) {
	h := newHost(t)
	h.journal(h.sandbox("died", false, store.About{}), "died", nil)
	ended := h.sandbox("ended", false, store.About{})
	h.journal(ended, "ended", &debugapi.Counters{Failure: "guest"})
	if err := ended.Retire(store.State{Namespace: "ns", ID: "ended"}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(ended.Path()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"died": "has died", "ended": "has ended: guest", "web": "has ended: guest", "default/web": "has ended: guest", "en": "has ended: guest"} {
		status, stdout, stderr := h.run("events", name)
		if status != 0 || !strings.Contains(stdout, "panic?[2J") || strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, %q, %s", name, status, stdout, stderr)
		}
	}
	if _, stdout, _ := h.run("events", "ended", "--since", "2001-01-01T00:00:00Z", "--json"); strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"kind":"vm-ended"`) {
		t.Errorf("since: %q", stdout)
	}
	if status, _, stderr := h.run("events", "other"); status != sandboxes.StatusNotFound {
		t.Errorf("another: status %d, %s", status, stderr)
	}
	if _, stdout, _ := h.run("ps"); strings.Contains(stdout, "ended") {
		t.Errorf("ps without --all: %s", stdout)
	}
	if _, stdout, _ := h.run("ps", "--all"); !strings.Contains(stdout, "default/web  ended") || !strings.Contains(stdout, "it has ended because of guest") {
		t.Errorf("ps --all: %s", stdout)
	}
	h.sandbox("web2", false, store.About{PodNamespace: "default", Pod: "web"})
	for name, has := range map[string]bool{"died": false, "default/web": true} { // a journal of another pod is none of its
		status, stdout, stderr := h.run("support", "-o", filepath.Join(h.dir, filepath.Base(name)+".tar.gz"), name)
		if status != 0 || strings.Contains(stdout, "ended/") != has {
			t.Errorf("support %s: status %d, %s%s", name, status, stdout, stderr)
		}
	}
	out := filepath.Join(h.dir, "out.tar.gz")
	if status, stdout, stderr := h.run("support", "-o", out); status != 0 || !strings.Contains(stdout, "ended/") || !strings.Contains(stdout, "sandboxes/died/journal.jsonl") {
		t.Errorf("support: status %d, %s%s", status, stdout, stderr)
	}
}
