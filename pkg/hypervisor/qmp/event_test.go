package qmp_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp/qmptest"
)

func TestEvents(t *testing.T) {
	client, server := qmptest.Dial(t)
	all := client.Subscribe(8, nil)
	stops := client.Subscribe(8, func(ev qmp.Event) bool { return ev.Name == "STOP" })
	server.Event("STOP", `{"a": 1}`)
	server.Event("RESUME", "null")
	server.Send(`{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}}`)

	var names []string
	for range 3 {
		names = append(names, (<-all.C).Name)
	}
	if diff := cmp.Diff([]string{"STOP", "RESUME", "STOP"}, names); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	first, second := <-stops.C, <-stops.C
	if string(first.Data) != `{"a": 1}` || !first.Time.Equal(time.Unix(1, 2000)) {
		t.Errorf("first event %s at %v", first.Data, first.Time)
	}
	if second.Data != nil || !second.Time.IsZero() {
		t.Errorf("second event %s at %v", second.Data, second.Time)
	}
}

// TestEventFlood has more events than anyone reads: commands still get through.
func TestEventFlood(t *testing.T) {
	client, server := qmptest.Dial(t)
	slow := client.Subscribe(2, nil)
	const flood = 1000
	for range flood {
		server.Event("NOISE", "{}")
	}
	done := execute(t.Context(), client, "query-status", nil)
	server.Return(server.Expect("query-status"), "{}")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := slow.Dropped(); got != flood-2 {
		t.Errorf("%d events dropped, want %d", got, flood-2)
	}
	slow.Close()
	slow.Close()
	queued := 0
	for range slow.C {
		queued++
	}
	if queued != 2 {
		t.Errorf("%d events queued, want 2", queued)
	}
}
