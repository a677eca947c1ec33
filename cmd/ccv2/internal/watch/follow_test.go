package watch

import (
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
)

func TestInstant(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "2026-01-02T03:04:05Z": now, "2026-01-02T04:04:05.5+01:00": now.Add(time.Second / 2),
	} {
		if got, err := instant(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"-10m", "10", "yesterday"} {
		if got, err := instant(s, now); sandboxes.StatusOf(err) != sandboxes.StatusUsage {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
