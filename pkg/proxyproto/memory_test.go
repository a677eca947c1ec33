package proxyproto

import (
	"bytes"
	"io"
	"testing"
)

// TestLargeBuffersAreReleased: one large command costs memory until the next
// small frame and no longer, on both sides.
func TestLargeBuffersAreReleased(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	for _, n := range []int{MaxPayload, 1} {
		if err := w.WriteResponse(CmdHyper, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if cap(w.buf) > retainLen {
		t.Errorf("writer keeps %d bytes", cap(w.buf))
	}
	r := NewReader(&stream)
	for range 2 {
		if _, err := r.ReadFrame(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(r.buf) > retainLen {
		t.Errorf("reader keeps %d bytes", cap(r.buf))
	}
	if _, err := r.ReadFrame(); err != io.EOF { //nolint:errorlint // documented to be exactly io.EOF
		t.Errorf("end of stream: %v", err)
	}
}
