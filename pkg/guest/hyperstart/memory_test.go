package hyperstart

import (
	"bytes"
	"testing"
)

// TestLargeBuffersAreReleased: one large message costs memory until the next
// small one and no longer.
func TestLargeBuffersAreReleased(t *testing.T) {
	stream := AppendCtl(nil, Ack, make([]byte, MaxCtlPayload))
	stream = AppendCtl(stream, Ack, []byte{1})
	r := NewCtlReader(bytes.NewReader(stream))
	for range 2 {
		if _, _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(r.buf) > retainLen {
		t.Errorf("reader keeps %d bytes", cap(r.buf))
	}
}
