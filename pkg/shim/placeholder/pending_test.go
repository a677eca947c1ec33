package placeholder

import (
	"slices"
	"syscall"
	"testing"
)

// TestPending has each signal once, and one who takes them.
func TestPending(t *testing.T) {
	var p Pending
	if !p.Add(15) || p.Add(64) || p.Add(1) || p.Add(15) {
		t.Error("not the first alone takes them")
	}
	var got []syscall.Signal
	for s := p.Next(); s != 0; s = p.Next() {
		if got = append(got, s); s == 64 && p.Add(9) {
			t.Error("another one takes a signal that comes meanwhile")
		}
	}
	if !slices.Equal(got, []syscall.Signal{1, 15, 64, 9}) {
		t.Errorf("%v", got)
	}
	if !p.Add(1) {
		t.Error("nobody takes the next one")
	}
}
