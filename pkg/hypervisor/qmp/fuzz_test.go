package qmp

import (
	"bytes"
	"testing"
)

// FuzzNext feeds a reader what a QEMU that its guest has taken over might send:
// it must end, with io.EOF or a reason, and never panic.
func FuzzNext(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "{}\n", "null\n", "[]\n", `{"return": {}, "id": 1}`, `{"id": -1}`, `{"id": 1e99}`,
		`{"error": {"class": 1}}`, `{"event": "STOP", "timestamp": {"seconds": 9223372036854775807}}`,
		"{\"event\": \"A\"}\r\n\r\n{\"event\": \"B\", \"data\": [1]}\n", "\x00\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := newLineReader(bytes.NewReader(data))
		for n := 0; ; n++ {
			m, err := lines.next()
			if err != nil {
				return
			}
			m.Stamp.time()
			if n > len(data) {
				t.Fatal("more messages than bytes")
			}
		}
	})
}
