package proxyproto_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// loop is a stream that repeats one frame for ever.
type loop struct {
	frame []byte
	at    int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.frame[l.at:])
	l.at = (l.at + n) % len(l.frame)
	return n, nil
}

func streamOf(t testing.TB, n int) *loop {
	return &loop{frame: encode(t, proxyproto.Frame{
		Header:  proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdout)},
		Payload: make([]byte, n),
	})}
}

var benchSizes = []int{0, 80, 4 << 10, proxyproto.MaxStreamPayload}

// TestNoAllocations holds the stream path to zero allocations per frame.
func TestNoAllocations(t *testing.T) {
	for _, n := range benchSizes {
		r := proxyproto.NewReader(streamOf(t, n))
		w := proxyproto.NewWriter(io.Discard)
		payload := make([]byte, n)
		if got := testing.AllocsPerRun(100, func() {
			if _, err := r.ReadFrame(); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("ReadFrame of %d bytes: %v allocations", n, got)
		}
		if got := testing.AllocsPerRun(100, func() {
			if err := w.WriteStream(proxyproto.StreamStdin, payload); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("WriteStream of %d bytes: %v allocations", n, got)
		}
		if got := testing.AllocsPerRun(100, func() {
			if err := w.WriteProcessExited(1); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("WriteProcessExited: %v allocations", got)
		}
	}
}

func BenchmarkReadFrame(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := proxyproto.NewReader(streamOf(b, n))
			b.SetBytes(int64(proxyproto.HeaderLen + n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.ReadFrame(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteStream(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := proxyproto.NewWriter(io.Discard)
			payload := make([]byte, n)
			b.SetBytes(int64(proxyproto.HeaderLen + n))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.WriteStream(proxyproto.StreamStdout, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteHyper(b *testing.B) {
	w := proxyproto.NewWriter(io.Discard)
	payload := proxyproto.Hyper{HyperName: "ping"}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.WriteCommand(proxyproto.CmdHyper, payload); err != nil {
			b.Fatal(err)
		}
	}
}
