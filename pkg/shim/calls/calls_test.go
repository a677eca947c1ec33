package calls_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
)

func TestCounts(t *testing.T) {
	var c calls.Counts
	c.Add("Start", 5*time.Millisecond, nil)
	c.Add("Start", 6*time.Millisecond, fmt.Errorf("x: %w", errdefs.ErrNotFound))
	c.Add("Start", time.Hour, context.DeadlineExceeded)
	c.Add("Exec", 0, errors.New("some"))
	want := []calls.Operation{
		{Name: "Exec", Took: [12]uint64{0: 1}, Failed: map[string]uint64{"unknown": 1}},
		{Name: "Start", Took: [12]uint64{0: 1, 1: 1, 11: 1}, Total: time.Hour + 11*time.Millisecond, Failed: map[string]uint64{"not_found": 1, "deadline_exceeded": 1}},
	}
	got := c.Operations()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got[1].Failed["not_found"] = 7 // the reader's own
	if c.Operations()[1].Failed["not_found"] != 1 {
		t.Error("a reader has changed what was counted")
	}
	var none *calls.Counts
	none.Add("Start", 0, nil)
	if none.Operations() != nil {
		t.Error("counts that are none count")
	}
}
