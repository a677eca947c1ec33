package hostcgroup

import (
	"errors"
	"os"
	"testing"
)

// BenchmarkGroup is what the cgroup costs the start and the end of a sandbox.
func BenchmarkGroup(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	for b.Loop() {
		g, err := Open("/ccv2-bench-group")
		if err != nil {
			b.Fatal(err)
		}
		limits := Limits{Memory: 1 << 30, Threads: 1000}
		if err := errors.Join(g.Enter(b.Context()), g.Limit(b.Context(), limits), g.EnterAll(), g.Leave(), g.Remove(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
}
