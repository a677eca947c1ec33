package debug_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func (f *fixture) counters(t *testing.T) (c debugapi.Counters) {
	t.Helper()
	answer, err := f.Counters(t.Context(), &debugapi.CountersRequest{})
	if err == nil {
		err = json.Unmarshal(answer.GetJson(), &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCounters says what was counted, also when nothing answers.
func TestCounters(t *testing.T) {
	f := newFixture(t)
	if c := f.counters(t); c.State != "new" || c.Failure != "" || len(c.Events)+len(c.Wire)+len(c.Calls)+len(c.Streams) > 0 {
		t.Errorf("new: %+v", c)
	}
	f.start(t, "pod", "wait")
	f.calls.Add("Start", 20*time.Millisecond, fmt.Errorf("x: %w", errdefs.ErrNotFound))
	f.tap.Ctl(false, hyperstart.Ping, nil)
	c := f.counters(t)
	if c.State != "ready" || c.Source != "template" || c.Events["create"] != 1 || c.Events["start"] != 1 || len(c.Phases) != 2 {
		t.Errorf("ready: %+v", c)
	}
	if len(c.Wire) != 1 || c.Wire[0] != (debugapi.WireCount{Layer: "ctl", Kind: "PING", Messages: 1, Bytes: 8}) {
		t.Errorf("wire: %+v", c.Wire)
	}
	if o := c.Calls[0]; o.Name != "Start" || o.Took[2] != 1 || o.Bounds[2] != 25e6 || o.Failed["not_found"] != 1 || len(o.Took) != len(o.Bounds)+1 {
		t.Errorf("calls: %+v", c.Calls)
	}
	f.machine.report.Phases = []podvm.Phase{{Name: "wait for guest", Err: errors.New("no")}}
	if c := f.counters(t); c.FailedPhase != "wait for guest" {
		t.Errorf("a start that has failed: %+v", c)
	}
}

// TestFailures: each end that nobody wanted has a word for counters.
func TestFailures(t *testing.T) {
	f := newFixture(t)
	for want, report := range map[string]podvm.Report{
		"qemu":       {Lost: errors.New("x"), LostPart: "qemu"},
		"unkillable": {Lost: fmt.Errorf("%w container c", sandbox.ErrUnkillable)},
		"":           {Lost: errors.New("sandbox was stopped")},
	} {
		f.machine.report = report
		if c := f.counters(t); c.Failure != want {
			t.Errorf("%v: %q, want %q", report.Lost, c.Failure, want)
		}
	}
}

// journal reads the lines of a journal.
func (f *fixture) journal(t *testing.T) (lines []debugapi.Journal) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, store.JournalFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var j debugapi.Journal
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, j)
	}
	return lines
}

// TestJournal: what has happened is on disk at once, with what was counted at the end.
func TestJournal(t *testing.T) {
	f := newFixture(t)
	f.start(t, "pod", "wait")
	f.history.Note("unhealthy", "a\x1bb")
	lines := f.journal(t)
	if len(lines) != 4 || lines[0].Sandbox == nil || lines[0].Sandbox.Pod != "web" || lines[1].Event.Kind != "create" || lines[3].Event.Text != "a?b" {
		t.Fatalf("journal %+v", lines)
	}
	if err := f.end(); err != nil {
		t.Fatal(err)
	}
	f.history.Note("late", "")
	lines = f.journal(t)
	if last := lines[len(lines)-1]; len(lines) != 5 || last.Counters == nil || last.Counters.Events["unhealthy"] != 1 {
		t.Errorf("at the end: %+v", lines)
	}
}

// TestJournalIsBounded: whatever a guest has happen, the journal has the last of it and is no larger than its bound.
func TestJournalIsBounded(t *testing.T) {
	f := newFixture(t)
	for i := range 2000 {
		f.history.Note("kind", fmt.Sprint(i, strings.Repeat("x", 8<<10)))
		info, err := os.Stat(filepath.Join(f.dir, store.JournalFile))
		if err != nil || info.Size() > 256<<10 {
			t.Fatalf("%d: %v, %v", i, info.Size(), err)
		}
	}
	lines := f.journal(t)
	if first, last := lines[0], lines[len(lines)-1]; first.Sandbox == nil || last.Event == nil || !strings.HasPrefix(last.Event.Text, "1999x") || len(lines) < 20 {
		t.Errorf("%d lines, the last is %.100v", len(lines), last)
	}
}

// TestTrace sends what passes from then on, without secrets unless they are asked for, of the layers that are asked for.
func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		request *debugapi.TraceRequest
		want    []string
	}{
		{&debugapi.TraceRequest{}, []string{"8 ctl", "12 tty"}},
		{&debugapi.TraceRequest{Secrets: true}, []string{"14 ctl", "18 tty"}},
		{&debugapi.TraceRequest{Layers: []string{"tty"}}, []string{"12 tty"}},
	} {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := f.Trace(ctx, tt.request)
		if err == nil {
			_, err = stream.Recv() // it watches
		}
		if err != nil {
			t.Fatal(err)
		}
		f.tap.Ctl(true, hyperstart.Event, []byte("SECRET"))
		f.tap.TTY(true, 3, []byte("SECRET"))
		for _, want := range tt.want {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%d %s", len(m.GetRaw()), []string{"ctl", "tty", "frame"}[m.GetLayer()]); got != want || !m.GetToHost() {
				t.Errorf("%v: got %s, want %s", tt.request, got, want)
			}
		}
		cancel()
		if _, err := stream.Recv(); err == nil {
			t.Error("it goes on")
		}
	}
}

// TestLogLevel changes that of this process.
func TestLogLevel(t *testing.T) {
	f := newFixture(t)
	before := log.GetLevel().String()
	defer func() { _ = log.SetLevel(before) }()
	if r, err := f.LogLevel(t.Context(), &debugapi.LogLevelRequest{Level: "trace", By: "me"}); err != nil || r.GetBefore() != before || log.GetLevel() != log.TraceLevel {
		t.Errorf("got %v, %v, level %s", r, err, log.GetLevel())
	}
	if r, err := f.LogLevel(t.Context(), &debugapi.LogLevelRequest{}); err != nil || r.GetBefore() != "trace" {
		t.Errorf("asked: %v, %v", r, err)
	}
	for _, level := range []string{"loud", "fatal", "PANIC"} {
		if _, err := f.LogLevel(t.Context(), &debugapi.LogLevelRequest{Level: level}); !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) || log.GetLevel() != log.TraceLevel {
			t.Errorf("%s: %v, level %s", level, err, log.GetLevel())
		}
	}
	stream, err := f.Events(t.Context(), &debugapi.LogRequest{})
	if got := receive(t, stream, err); len(got) != 1 || !strings.Contains(got[0], "asked for by me") {
		t.Errorf("events %q", got)
	}
}

// TestHeartbeatHasTheGuest: what the guest has said of itself is there without another question.
func TestHeartbeatHasTheGuest(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: time.Millisecond, Limit: time.Minute})
	close(f.answers)
	c := f.counters(t)
	for c.Guest == nil && t.Context().Err() == nil {
		c = f.counters(t)
	}
	if c.Guest.Kernel != "6.1" || c.Heartbeat.IsZero() || c.Unhealthy != "" {
		t.Errorf("got %+v", c)
	}
}
