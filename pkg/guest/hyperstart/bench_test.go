package hyperstart_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// loop is a stream that repeats one message for ever.
type loop struct {
	message []byte
	at      int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.message[l.at:])
	l.at = (l.at + n) % len(l.message)
	return n, nil
}

var benchSizes = []int{0, 80, 4 << 10, hyperstart.MaxTTYPayload}

// TestNoAllocations holds the path of output and credits to zero allocations
// per message.
func TestNoAllocations(t *testing.T) {
	for _, n := range benchSizes {
		payload := make([]byte, n)
		r := hyperstart.NewTTYReader(&loop{message: hyperstart.AppendTTY(nil, 3, payload)})
		var buf []byte
		for name, f := range map[string]func(){
			"Read": func() {
				if _, _, err := r.Read(); err != nil {
					t.Fatal(err)
				}
			},
			"AppendTTY": func() { buf = hyperstart.AppendTTY(buf[:0], 3, payload) },
			"AppendCredit": func() {
				buf = hyperstart.AppendCredit(buf[:0], hyperstart.Credit{Seq: 3, Bytes: 1})
			},
		} {
			if got := testing.AllocsPerRun(100, f); got != 0 {
				t.Errorf("%s of %d bytes: %v allocations", name, n, got)
			}
		}
	}
}

func BenchmarkTTYRead(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := hyperstart.NewTTYReader(&loop{message: hyperstart.AppendTTY(nil, 3, make([]byte, n))})
			b.SetBytes(int64(hyperstart.TTYHeaderLen + n))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := r.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendTTY(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			payload := make([]byte, n)
			var buf []byte
			b.SetBytes(int64(hyperstart.TTYHeaderLen + n))
			b.ReportAllocs()
			for b.Loop() {
				buf = hyperstart.AppendTTY(buf[:0], 3, payload)
			}
		})
	}
}

func BenchmarkCtlRead(b *testing.B) {
	message := hyperstart.AppendCtl(nil, hyperstart.Ack, bytes.Repeat([]byte{' '}, 512))
	r := hyperstart.NewCtlReader(&loop{message: message})
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
