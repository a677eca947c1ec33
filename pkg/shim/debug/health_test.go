package debug_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// TestLastWords: the event about a guest that does not answer has what its kernel has said last.
func TestLastWords(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 5 * time.Millisecond},
		"before", "watchdog: BUG: soft lockup", "CPU#0 stuck\x1b[2J")
	events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	e, err := events.Recv()
	if err != nil || e.GetKind() != "unhealthy" || !strings.HasSuffix(e.GetText(), "; last console lines: before | watchdog: BUG: soft lockup | CPU#0 stuck?[2J") {
		t.Errorf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; strings.Contains(ill, "lockup") {
		t.Errorf("ps would say %q", ill)
	}
}

// TestHungEnds: where the configuration says so, what does not answer is ended.
func TestHungEnds(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 5 * time.Millisecond, EndAfter: 50 * time.Millisecond})
	f.start(t, "pod", "wait")
	select {
	case <-f.machine.Lost():
	case <-t.Context().Done():
		t.Fatal("it stays")
	}
	if cause := f.machine.Err(); cause == nil || !strings.Contains(cause.Error(), "because it did not answer for 50ms ([health] end_after): the vmm does not answer") {
		t.Errorf("cause %v", cause)
	}
}

// TestHealth: a VMM that does not answer is an event, once, and so is that it does again.
func TestHealth(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 20 * time.Millisecond})
	events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	e, err := events.Recv()
	if err != nil || e.GetKind() != "unhealthy" || !strings.Contains(e.GetText(), "the vmm does not answer (within 20ms)") {
		t.Fatalf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; ill != e.GetText() {
		t.Errorf("info says %q", ill)
	}
	close(f.answers)
	if e, err := events.Recv(); err != nil || e.GetKind() != "healthy" {
		t.Fatalf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; ill != "" {
		t.Errorf("info says %q", ill)
	}
}
