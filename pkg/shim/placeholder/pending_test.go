package placeholder

import (
	"slices"
	"syscall"
	"testing"
)

// TestPassOn delivers each signal once, in one goroutine.
func TestPassOn(t *testing.T) {
	var work []func()
	var got []syscall.Signal
	var signalled func(syscall.Signal)
	signalled = PassOn(func(f func()) { work = append(work, f) }, func(s syscall.Signal) {
		if got = append(got, s); s == 64 {
			signalled(9) // while they are delivered
		}
	})
	for _, s := range []syscall.Signal{15, 64, 1, 15} {
		signalled(s)
	}
	for range 2 {
		if len(work) != 1 {
			t.Fatalf("%d goroutines, want one", len(work))
		}
		work[0]()
		work = nil
		signalled(2)
	}
	if !slices.Equal(got, []syscall.Signal{1, 15, 64, 9, 2}) {
		t.Errorf("%v", got)
	}
}
