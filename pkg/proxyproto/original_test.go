package proxyproto_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// The original has one untyped constant for its only notification, so that it
// mixes with every other integer. Ours must not compile as anything else.
var _ proxyproto.Notification = proxyproto.NotifyProcessExited

// TestOriginalBugs has one case for each defect of the original codec that was
// seen when it ran. None of them may come back.
func TestOriginalBugs(t *testing.T) {
	valid := header(nil)

	t.Run("short header panics", func(t *testing.T) {
		for words := range byte(3) {
			if _, err := decode(header(map[int]byte{2: words})); !errors.Is(err, proxyproto.ErrHeaderTooShort) {
				t.Errorf("F4: %d words: %v", words, err)
			}
		}
	})
	t.Run("header must come in one read", func(t *testing.T) {
		if _, err := proxyproto.NewReader(iotest.OneByteReader(bytes.NewReader(valid))).ReadFrame(); err != nil {
			t.Errorf("F10: %v", err)
		}
	})
	t.Run("long header is written as long as it was", func(t *testing.T) {
		f, err := decode(readVector(t, "command-attachvm-long-header"))
		if err != nil {
			t.Fatal(err)
		}
		if f.HeaderWords != 4 {
			t.Fatalf("the vector has %d words", f.HeaderWords)
		}
		again, err := decode(encode(t, f))
		if err != nil || again.HeaderWords != 3 || !bytes.Equal(f.Payload, again.Payload) {
			t.Errorf("F14: got %v, %v", again, err)
		}
	})
	t.Run("opcode is cut to eight bits", func(t *testing.T) {
		f := proxyproto.Frame{Header: proxyproto.Header{Opcode: 300 & 0xff}}
		if err := proxyproto.NewWriter(new(bytes.Buffer)).WriteFrame(f); !errors.Is(err, proxyproto.ErrUnknownOpcode) {
			t.Errorf("F8: %v", err)
		}
	})
	t.Run("length is allocated before it arrives", func(t *testing.T) {
		if _, err := decode(withLength(1<<32 - 1)); !errors.Is(err, proxyproto.ErrPayloadTooLarge) {
			t.Errorf("F9: %v", err)
		}
		if n := testing.Benchmark(benchmarkMissingPayload).AllocedBytesPerOp(); n > 128<<10 {
			t.Errorf("F13: a length of %d cost %d bytes", proxyproto.MaxPayload, n)
		}
	})
	t.Run("reserved bits pass", func(t *testing.T) {
		if _, err := decode(header(map[int]byte{4: 1})); !errors.Is(err, proxyproto.ErrReservedBits) {
			t.Errorf("F5: %v", err)
		}
	})
}

func benchmarkMissingPayload(b *testing.B) {
	in := withLength(proxyproto.MaxPayload)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := proxyproto.NewReader(bytes.NewReader(in)).ReadFrame(); err == nil {
			b.Fatal("a frame without its payload was read")
		}
	}
}
