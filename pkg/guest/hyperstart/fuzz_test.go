package hyperstart

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// message is a message of either port.
type message struct {
	id      uint64 // code or sequence number
	payload []byte
}

// naive is a second decoder, written to be obvious. It has all the bytes at
// once and returns the first message, the rest, and the expected error.
func naive(b []byte, tty bool) (m message, rest []byte, err error) {
	header, limit := 8, MaxCtlPayload
	if tty {
		header, limit = 12, MaxTTYPayload
	}
	switch {
	case len(b) == 0:
		return m, nil, io.EOF
	case len(b) < header:
		return m, nil, io.ErrUnexpectedEOF
	}
	length := binary.BigEndian.Uint32(b[header-4:])
	switch {
	case length < uint32(header):
		return m, nil, ErrTooShort
	case length > uint32(header+limit):
		return m, nil, ErrTooLong
	case uint64(len(b)) < uint64(length):
		return m, nil, io.ErrUnexpectedEOF
	}
	m.id = uint64(binary.BigEndian.Uint32(b))
	if tty {
		m.id = binary.BigEndian.Uint64(b)
	}
	m.payload = b[header:length]
	return m, b[length:], nil
}

// anyReader reads messages of either port.
func anyReader(r io.Reader, tty bool) (read func() (message, error), buf *[]byte) {
	if tty {
		t := NewTTYReader(r)
		return func() (m message, err error) {
			m.id, m.payload, err = t.Read()
			return m, err
		}, &t.buf
	}
	c := NewCtlReader(r)
	return func() (message, error) {
		code, payload, err := c.Read()
		return message{uint64(code), payload}, err
	}, &c.buf
}

func appendAny(dst []byte, m message, tty bool) []byte {
	if tty {
		return AppendTTY(dst, m.id, m.payload)
	}
	return AppendCtl(dst, Code(m.id), m.payload)
}

// fuzzRead feeds hostile bytes to a reader and compares it with naive. Memory
// stays in proportion to what has arrived (M5).
func fuzzRead(t *testing.T, data []byte, tty bool) {
	read, buf := anyReader(bytes.NewReader(data), tty)
	for rest := data; ; {
		want, next, wantErr := naive(rest, tty)
		got, err := read()
		if !errors.Is(err, wantErr) {
			t.Fatalf("at %d: got %v, want %v", len(data)-len(rest), err, wantErr)
		}
		if cap(*buf) > 2*len(data)+growStep {
			t.Fatalf("M5: %d bytes of memory for %d of input", cap(*buf), len(data))
		}
		if err != nil {
			return
		}
		if got.id != want.id || !bytes.Equal(got.payload, want.payload) {
			t.Fatalf("at %d: got %+v, want %+v", len(data)-len(rest), got, want)
		}
		if encoded := appendAny(nil, got, tty); !bytes.Equal(encoded, rest[:len(encoded)]) {
			t.Fatalf("encoded again as %x", encoded)
		}
		rest = next
	}
}

// FuzzCtlReader feeds hostile bytes to the control port.
func FuzzCtlReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendCtl(nil, Ready, nil))
	f.Add(AppendCtl(AppendCtl(nil, Next, []byte{0, 0, 0, 8}), Ack, []byte{0, 0, 16, 148}))
	f.Add(AppendCtl(nil, Call, AppendCall(nil, 1, Ping, nil))[:12])
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 4})
	f.Add([]byte{0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 1, 0, 0x40, 0, 8})
	f.Fuzz(func(t *testing.T, data []byte) { fuzzRead(t, data, false) })
}

// FuzzTTYReader feeds hostile bytes to the tty port.
func FuzzTTYReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendTTY(AppendTTY(nil, 3, nil), 3, []byte{42}))
	f.Add(AppendCredit(nil, Credit{Seq: 3, Bytes: 1}))
	f.Add(AppendTTY(nil, 1<<63, []byte("hello"))[:14])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 13})
	f.Fuzz(func(t *testing.T, data []byte) { fuzzRead(t, data, true) })
}

// FuzzSequence writes messages, cut out of data, and reads them through
// arbitrary splits (M4).
func FuzzSequence(f *testing.F) {
	f.Add([]byte("hello"), []byte{0}, true)
	f.Add([]byte{1, 200, 3, 4, 5, 6, 7, 8, 9}, []byte{0, 10, 2}, false)
	f.Add(bytes.Repeat([]byte{255, 7}, 300), []byte{255, 0, 17}, true)
	f.Fuzz(func(t *testing.T, data, sizes []byte, tty bool) {
		data = data[:min(len(data), 4<<10)] // more takes time and finds nothing
		var sent []message
		var stream []byte
		for rest := data; len(rest) > 0; {
			n := min(int(rest[0]), len(rest)-1)
			m := message{id: uint64(rest[0]) * 0x01010101, payload: rest[1 : 1+n]}
			sent = append(sent, m)
			stream = appendAny(stream, m, tty)
			rest = rest[1+n:]
		}
		read, _ := anyReader(&splitReader{data: stream, sizes: sizes}, tty)
		for i, want := range sent {
			got, err := read()
			if err != nil || got.id != want.id || !bytes.Equal(got.payload, want.payload) {
				t.Fatalf("message %d: got %+v, %v, want %+v", i, got, err, want)
			}
		}
		if _, err := read(); !errors.Is(err, io.EOF) {
			t.Fatalf("after %d messages: %v", len(sent), err)
		}
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

// FuzzPayloads feeds hostile bytes to everything that looks into a payload.
func FuzzPayloads(f *testing.F) {
	f.Add([]byte(`{"class":"not_found","message":"m","exitStatus":127}`))
	f.Add([]byte(`{"container":"c","file":"/f"}content`))
	f.Add(AppendCall(nil, 1, Ping, []byte("x")))
	f.Add(make([]byte, 2*creditLen))
	f.Add([]byte("no such container\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for d := DialectUnknown; d <= DialectCCv2; d++ {
			e := ParseError(d, Ping, data)
			if len(e.Message) > maxErrorText || e.Class != e.Class.known() {
				t.Fatalf("%v: %d bytes of class %q", d, len(e.Message), e.Class)
			}
		}
		if ticket, code, payload, err := ParseCall(data); err == nil {
			if b := AppendCall(nil, ticket, code, payload); !bytes.Equal(b, data) {
				t.Fatalf("call encoded again as %x", b)
			}
		}
		var credits []byte
		err := ParseCredits(data, func(c Credit) {
			credits = append(credits, AppendCredit(nil, c)[TTYHeaderLen:]...)
		})
		if err == nil && !bytes.Equal(credits, data) {
			t.Fatalf("credits encoded again as %x", credits)
		}
		if r, content, err := ParseWriteFile(data); err == nil {
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, content...)
			if again, rest, err := ParseWriteFile(b); err != nil || again != r || !bytes.Equal(rest, content) {
				t.Fatalf("file encoded again as %q, %v", b, err)
			}
		}
	})
}
