package proxyproto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// naive is a second decoder, written to be obvious: it has all the bytes at
// once and follows PROTOCOL.md rule by rule. It returns the first frame of b,
// the rest, and the error that a reader must report.
func naive(b []byte, lenient bool) (f Frame, rest []byte, err error) {
	if len(b) == 0 {
		return f, nil, io.EOF // F12
	}
	if len(b) < 12 {
		return f, nil, io.ErrUnexpectedEOF // F12
	}
	if binary.BigEndian.Uint16(b) != 2 {
		return f, nil, ErrVersion // F3
	}
	if b[2] < 3 {
		return f, nil, ErrHeaderTooShort // F4
	}
	if !lenient && (b[3] != 0 || b[4] != 0 || b[5] != 0 || b[6]>>5 != 0) {
		return f, nil, ErrReservedBits // F5
	}
	kind, flag := b[6]%16, b[6]>>4&1 == 1
	if kind > 3 {
		return f, nil, ErrUnknownType // F7
	}
	if b[7] >= []byte{7, 7, 4, 1}[kind] {
		return f, nil, ErrUnknownOpcode // F8
	}
	if flag && kind != 1 {
		if !lenient {
			return f, nil, ErrErrorFlag // F6
		}
		flag = false
	}
	length := binary.BigEndian.Uint32(b[8:])
	if length > MaxPayload {
		return f, nil, ErrPayloadTooLarge // F9
	}
	start := 4 * int(b[2])
	if len(b) < start+int(length) {
		return f, nil, io.ErrUnexpectedEOF // F12
	}
	f.Header = Header{Type: Type(kind), Opcode: b[7], Error: flag, HeaderWords: b[2], PayloadLen: length}
	f.Payload = b[start : start+int(length)] // F2
	return f, b[start+int(length):], nil
}

func sameFrame(a, b Frame) bool { return a.Header == b.Header && bytes.Equal(a.Payload, b.Payload) }

// FuzzReadFrame feeds hostile bytes to a reader and compares it with naive, frame by
// frame. Memory stays in proportion to what has arrived (F13).
func FuzzReadFrame(f *testing.F) {
	valid := []byte{0, 2, 3, 0, 0, 0, 0, 3, 0, 0, 0, 2, '{', '}'}
	f.Add([]byte{}, false)
	f.Add(valid, false)
	f.Add(append(bytes.Clone(valid), valid...), true)
	f.Add(valid[:7], false)
	f.Add(valid[:13], true)
	f.Add([]byte{0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Add([]byte{0, 2, 4, 0, 0, 0, 0xf1, 0, 0, 0, 0, 0, 1, 2, 3, 4}, true)
	f.Add([]byte{0, 2, 3, 0, 0, 0, 2, 1, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add([]byte{0, 2, 3, 0, 0, 0, 2, 1, 0, 0x40, 0, 0}, false)
	session, err := os.ReadFile(filepath.Join("testdata", "session.hex"))
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(session)) {
		if fields := strings.Fields(line); len(fields) == 4 {
			if b, err := hex.DecodeString(fields[3]); err == nil {
				f.Add(b, len(b)%2 == 0)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, lenient bool) {
		r := NewReader(bytes.NewReader(data))
		r.Lenient = lenient
		rest := data
		for {
			want, next, wantErr := naive(rest, lenient)
			got, err := r.ReadFrame()
			if !errors.Is(err, wantErr) {
				t.Fatalf("at %d: got error %v, want %v", len(data)-len(rest), err, wantErr)
			}
			if limit := 2*len(data) + growStep; cap(r.buf) > limit {
				t.Fatalf("F13: %d bytes of memory for %d of input", cap(r.buf), len(data))
			}
			if err != nil {
				return
			}
			if !sameFrame(got, want) {
				t.Fatalf("at %d: got %+v, want %+v", len(data)-len(rest), got, want)
			}
			encoded, err := AppendFrame(nil, got)
			if err != nil {
				t.Fatalf("F14: %v", err)
			}
			want.HeaderWords = minHeaderWords
			if again, left, err := naive(encoded, false); err != nil || len(left) > 0 || !sameFrame(again, want) {
				t.Fatalf("F14: written as %x, %v", encoded, err)
			}
			rest = next
		}
	})
}

// FuzzRoundTrip writes any frame: it is refused, or read back as it was.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint8(0), uint8(3), false, []byte("{}"))
	f.Add(uint8(1), uint8(6), true, []byte(`{"msg":"x"}`))
	f.Add(uint8(2), uint8(0), false, []byte{})
	f.Add(uint8(3), uint8(0), false, []byte{42})
	f.Add(uint8(3), uint8(1), true, []byte{})
	f.Add(uint8(0x13), uint8(0), false, []byte{})
	f.Fuzz(func(t *testing.T, kind, opcode uint8, flag bool, payload []byte) {
		in := Frame{Header: Header{Type: Type(kind), Opcode: opcode, Error: flag}, Payload: payload}
		var b bytes.Buffer
		err := NewWriter(&b).WriteFrame(in)
		valid := kind < 4 && opcode < []uint8{7, 7, 4, 1}[kind%4] && (!flag || kind == 1)
		if valid != (err == nil) {
			t.Fatalf("%+v: %v", in.Header, err)
		}
		if err != nil {
			if b.Len() > 0 {
				t.Fatalf("refused, but wrote %x", b.Bytes())
			}
			return
		}
		got, err := NewReader(&b).ReadFrame()
		in.HeaderWords, in.PayloadLen = minHeaderWords, uint32(len(payload))
		if err != nil || !sameFrame(got, in) {
			t.Fatalf("got %+v, %v, want %+v", got, err, in)
		}
		_ = got.Err()
		_ = got.String()
	})
}

// splitReader returns at most sizes[i]+1 bytes from its i-th Read.
type splitReader struct {
	data, sizes []byte
	i           int
}

func (s *splitReader) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	limit := len(p)
	if len(s.sizes) > 0 {
		limit = min(limit, int(s.sizes[s.i%len(s.sizes)])+1)
		s.i++
	}
	n := copy(p[:limit], s.data)
	s.data = s.data[n:]
	return n, nil
}

// FuzzFrameSequence writes a sequence of frames, cut out of data, and reads it
// through arbitrary splits (F2, F10).
func FuzzFrameSequence(f *testing.F) {
	f.Add([]byte("hello"), []byte{0})
	f.Add([]byte{1, 200, 3, 4, 5, 6, 7, 8, 9}, []byte{0, 10, 2})
	f.Add(bytes.Repeat([]byte{255, 7}, 300), []byte{255, 0, 17})
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		data = data[:min(len(data), 4<<10)] // more takes time and finds nothing
		var sent []Frame
		var b bytes.Buffer
		w := NewWriter(&b)
		for rest := data; len(rest) > 0; {
			n := min(int(rest[0]), len(rest)-1)
			payload := rest[1 : 1+n]
			frame := Frame{Header: Header{Type: Type(rest[0] % 4)}, Payload: payload}
			frame.Error = frame.Type == TypeResponse && n%2 == 1
			if err := w.WriteFrame(frame); err != nil {
				t.Fatal(err)
			}
			frame.HeaderWords, frame.PayloadLen = minHeaderWords, uint32(len(payload))
			sent = append(sent, frame)
			rest = rest[1+n:]
		}
		for _, in := range []io.Reader{
			&splitReader{data: b.Bytes(), sizes: sizes},
			iotest.DataErrReader(&splitReader{data: b.Bytes(), sizes: sizes}),
		} {
			r := NewReader(in)
			for i, want := range sent {
				if got, err := r.ReadFrame(); err != nil || !sameFrame(got, want) {
					t.Fatalf("frame %d: got %v, %v, want %v", i, got, err, want)
				}
			}
			if _, err := r.ReadFrame(); !errors.Is(err, io.EOF) {
				t.Fatalf("after %d frames: %v", len(sent), err)
			}
		}
	})
}
