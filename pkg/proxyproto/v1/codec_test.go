package v1_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// vectors returns the messages of testdata/messages.hex by name.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/messages.hex")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	name := ""
	for line := range strings.Lines(string(text)) {
		digits, comment, _ := strings.Cut(line, "#")
		if heading, ok := strings.CutPrefix(comment, " --- "); ok {
			name = strings.TrimSpace(heading)
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if name != "" {
			out[name] = append(out[name], b...)
		}
	}
	return out
}

// TestVectors holds every message against a Go value, both ways (M1, Q1, Q2).
func TestVectors(t *testing.T) {
	tests := []struct {
		name  string
		write func(*v1.Writer) error
		want  any
		got   any
	}{
		{"hello", func(w *v1.Writer) error {
			return w.WriteRequest(v1.MethodHello, v1.Hello{ContainerID: "pod1", CtlSerial: "/c", IOSerial: "/t"})
		}, &v1.Hello{ContainerID: "pod1", CtlSerial: "/c", IOSerial: "/t"}, new(v1.Hello)},
		{"attach", func(w *v1.Writer) error { return w.WriteRequest(v1.MethodAttach, v1.Attach{ContainerID: "pod1"}) }, &v1.Attach{ContainerID: "pod1"}, new(v1.Attach)},
		{"bye", func(w *v1.Writer) error { return w.WriteRequest(v1.MethodBye, v1.Bye{ContainerID: "pod1"}) }, &v1.Bye{ContainerID: "pod1"}, new(v1.Bye)},
		{"allocateIO", func(w *v1.Writer) error { return w.WriteRequest(v1.MethodAllocateIO, v1.AllocateIO{NStreams: 2}) }, &v1.AllocateIO{NStreams: 2}, new(v1.AllocateIO)},
		{"hyper", func(w *v1.Writer) error {
			return w.WriteRequest(v1.MethodHyper, v1.Hyper{HyperName: "startpod", Data: json.RawMessage(`{"hostname":"<a>"}`)})
		}, &v1.Hyper{HyperName: "startpod", Data: json.RawMessage(`{"hostname":"<a>"}`)}, new(v1.Hyper)},
		{"response version", func(w *v1.Writer) error { return w.WriteResponse(v1.HelloResult{Version: v1.Version}) }, &v1.HelloResult{Version: 1}, new(v1.HelloResult)},
		{"response ioBase", func(w *v1.Writer) error { return w.WriteResponse(v1.AllocateIOResult{IOBase: 1234}) }, &v1.AllocateIOResult{IOBase: 1234}, new(v1.AllocateIOResult)},
		{"response empty", func(w *v1.Writer) error { return w.WriteResponse(nil) }, nil, nil},
		{"response error", func(w *v1.Writer) error { return w.WriteError(errors.New("no 'id' field in request")) }, nil, nil},
	}
	all := vectors(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := all[tt.name]
			var b bytes.Buffer
			if err := tt.write(v1.NewWriter(&b)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(raw), b.String()); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			r := v1.NewReader(iotest.OneByteReader(bytes.NewReader(raw)))
			decoded := decodeAny(t, r, strings.HasPrefix(tt.name, "response"), tt.got)
			if diff := cmp.Diff(tt.want, decoded); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			if _, err := r.ReadRequest(); !errors.Is(err, io.EOF) {
				t.Errorf("M5: after the message: %v", err)
			}
		})
	}
}

// decodeAny reads one message and decodes its data into v, unless v is nil.
func decodeAny(t *testing.T, r *v1.Reader, response bool, v any) any {
	t.Helper()
	var decode func(any) error
	if response {
		resp, err := r.ReadResponse()
		if err != nil {
			t.Fatal(err)
		}
		if resp.Success != (resp.Err() == nil) {
			t.Errorf("success %t with error %v", resp.Success, resp.Err())
		}
		decode = resp.Decode
	} else {
		req, err := r.ReadRequest()
		if err = errors.Join(err, req.Validate()); err != nil {
			t.Fatal(err)
		}
		decode = req.Decode
	}
	if v == nil {
		if err := decode(new(any)); err == nil {
			t.Error("absent data was decoded")
		}
		return nil
	}
	if err := decode(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func message(reserved uint32, text string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, reserved)
	return append(b, text...)
}

// TestRead has one row for each way in which a message is judged.
func TestRead(t *testing.T) {
	anyJSON := errors.New("a JSON error")
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"M2: reserved bits", message(1<<32-1, `{"id":"bye"}`), nil},
		{"unknown keys", message(0, `{"id":"bye","x":1}`), nil},
		{"M3: over the limit", binary.BigEndian.AppendUint64(nil, (v1.MaxMessage+1)<<32), v1.ErrTooLarge},
		{"M3: 4 GiB", bytes.Repeat([]byte{255}, 8), v1.ErrTooLarge},
		{"M5: end", nil, io.EOF},
		{"M5: half a header", make([]byte, 7), io.ErrUnexpectedEOF},
		{"M5: no JSON", message(0, `{"id":"bye"}`)[:8], io.ErrUnexpectedEOF},
		{"M5: half of the JSON", message(0, `{"id":"bye"}`)[:12], io.ErrUnexpectedEOF},
		{"M6: empty", make([]byte, 8), anyJSON},
		{"M6: array", message(0, `[]`), anyJSON},
		{"M6: two values", message(0, `{} {}`), anyJSON},
		{"M6: number as id", message(0, `{"id":1}`), anyJSON},
		{"M6: version 2 frame", []byte{0, 2, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0}, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := v1.NewReader(iotest.HalfReader(bytes.NewReader(tt.in))).ReadRequest()
			if errors.Is(tt.want, anyJSON) {
				if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got %v, want a JSON error", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestReadStopsAtTheEnd: M4, the byte after a message stays in the stream.
func TestReadStopsAtTheEnd(t *testing.T) {
	in := bytes.NewReader(append(message(0, `{"success":true}`), 'F'))
	if _, err := v1.NewReader(in).ReadResponse(); err != nil {
		t.Fatal(err)
	}
	if in.Len() != 1 {
		t.Errorf("%d bytes left, want 1", in.Len())
	}
}

// TestHostileLength: M3, a length without its bytes costs little.
func TestHostileLength(t *testing.T) {
	in := binary.BigEndian.AppendUint64(nil, v1.MaxMessage<<32)
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v1.NewReader(bytes.NewReader(in)).ReadRequest(); err == nil {
				b.Fatal("read a message that is not there")
			}
		}
	}).AllocedBytesPerOp()
	if got > 64<<10 {
		t.Errorf("%d bytes for a length of %d", got, v1.MaxMessage)
	}
}

// TestValidate has the texts of the original proxy (Q3, Q4).
func TestValidate(t *testing.T) {
	tests := []struct {
		got  error
		want string
	}{
		{v1.Request{}.Validate(), "no 'id' field in request"},
		{v1.Request{ID: "x"}.Validate(), "no payload named 'x'"},
		{v1.Request{ID: "Hello"}.Validate(), "no payload named 'Hello'"},
		{v1.AllocateIO{}.Validate(), "asking for unexpected number of streams (0)"},
		{v1.AllocateIO{NStreams: 3}.Validate(), "asking for unexpected number of streams (3)"},
		{(&v1.RemoteError{}), "proxy: the proxy gave no reason"},
		{v1.Response{Error: "x"}.Err(), "proxy: x"},
		{v1.Request{ID: v1.MethodBye}.Decode(new(v1.Bye)), "decode bye request: unexpected end of JSON input"},
	}
	for _, tt := range tests {
		if tt.got == nil || tt.got.Error() != tt.want {
			t.Errorf("got %v, want %s", tt.got, tt.want)
		}
	}
	for _, n := range []int{1, 2} {
		if err := (v1.AllocateIO{NStreams: n}).Validate(); err != nil {
			t.Error(err)
		}
	}
}

type callCounter struct{ n int }

func (c *callCounter) Write(p []byte) (int, error) { c.n++; return len(p), nil }

// TestWrite: M4, one call per message; and what cannot be written.
func TestWrite(t *testing.T) {
	var c callCounter
	w := v1.NewWriter(&c)
	for i, tt := range []struct {
		err   error
		calls int
	}{
		{w.WriteRequest(v1.MethodHello, v1.Hello{}), 1},
		{w.WriteResponse(nil), 2},
		{w.WriteError(io.EOF), 3},
	} {
		if tt.err != nil || c.n < tt.calls {
			t.Errorf("%d: %v after %d calls", i, tt.err, c.n)
		}
	}
	if c.n != 3 {
		t.Errorf("%d calls for 3 messages", c.n)
	}
	if err := w.WriteError(nil); err == nil {
		t.Error("nil was written as an error")
	}
	if err := w.WriteRequest(v1.MethodHello, func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := w.WriteResponse(func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := w.WriteResponse(strings.Repeat("x", v1.MaxMessage)); !errors.Is(err, v1.ErrTooLarge) {
		t.Errorf("M3: %v", err)
	}
	if c.n != 3 {
		t.Error("a refused message was written")
	}
}

// FuzzReadRequest feeds hostile bytes. What is accepted reads back the same.
func FuzzReadRequest(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(append(bytes.Clone(b), b...))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{255}, 8))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := v1.NewReader(bytes.NewReader(data))
		for {
			req, err := r.ReadRequest()
			if err != nil {
				return
			}
			var b bytes.Buffer
			var payload any
			if req.Data != nil {
				payload = req.Data
			}
			if err := v1.NewWriter(&b).WriteRequest(req.ID, payload); err != nil {
				if errors.Is(err, v1.ErrTooLarge) {
					continue // our JSON may be longer than theirs
				}
				t.Fatal(err)
			}
			again, err := v1.NewReader(&b).ReadRequest()
			if err != nil || again.ID != req.ID || !sameJSON(req.Data, again.Data) {
				t.Fatalf("%+v, then %+v, %v", req, again, err)
			}
		}
	})
}

// sameJSON compares two values apart from white space.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	errX, errY := json.Compact(&x, a), json.Compact(&y, b)
	return (errX == nil) == (errY == nil) && bytes.Equal(x.Bytes(), y.Bytes())
}

// FuzzResponses writes responses and reads them in pieces.
func FuzzResponses(f *testing.F) {
	f.Add("", "", uint8(1))
	f.Add("no such VM", "<&>", uint8(3))
	f.Fuzz(func(t *testing.T, failure, data string, split uint8) {
		failure, data = strings.ToValidUTF8(failure, ""), strings.ToValidUTF8(data, "")
		var b bytes.Buffer
		w := v1.NewWriter(&b)
		if err := errors.Join(w.WriteResponse(data), w.WriteError(errors.New(failure)), w.WriteResponse(nil)); err != nil {
			t.Fatal(err)
		}
		r := v1.NewReader(&pieces{b.Bytes(), int(split) + 1})
		var got string
		first, err := r.ReadResponse()
		if err = errors.Join(err, first.Err(), first.Decode(&got)); err != nil || got != data {
			t.Fatalf("got %q, %v, want %q", got, err, data)
		}
		second, err := r.ReadResponse()
		if err != nil || second.Success || second.Error != failure {
			t.Fatalf("got %+v, %v, want error %q", second, err, failure)
		}
		third, err := r.ReadResponse()
		if err != nil || third.Err() != nil || third.Data != nil {
			t.Fatalf("got %+v, %v, want an empty response", third, err)
		}
	})
}

type pieces struct {
	data []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.data)
	p.data = p.data[n:]
	return n, nil
}
