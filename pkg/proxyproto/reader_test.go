package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// header returns the 12 bytes of a valid empty frame with some bytes replaced.
func header(replace map[int]byte) []byte {
	b := []byte{0, 2, 3, 0, 0, 0, byte(proxyproto.TypeCommand), byte(proxyproto.CmdHyper), 0, 0, 0, 0}
	for i, v := range replace {
		b[i] = v
	}
	return b
}

// readRules has one row for each way in which a header is judged.
var readRules = []struct {
	name    string
	rule    string
	in      []byte
	strict  error // nil: accepted
	lenient error
	field   proxyproto.Field
}{
	{"valid", "F1", header(nil), nil, nil, 0},
	{"version 1", "F3", header(map[int]byte{1: 1}), proxyproto.ErrVersion, proxyproto.ErrVersion, proxyproto.FieldVersion},
	{"version 3", "F3", header(map[int]byte{1: 3}), proxyproto.ErrVersion, proxyproto.ErrVersion, proxyproto.FieldVersion},
	{"version 0x0102", "F3", header(map[int]byte{0: 1}), proxyproto.ErrVersion, proxyproto.ErrVersion, proxyproto.FieldVersion},
	{"no words", "F4", header(map[int]byte{2: 0}), proxyproto.ErrHeaderTooShort, proxyproto.ErrHeaderTooShort, proxyproto.FieldHeaderWords},
	{"two words", "F4", header(map[int]byte{2: 2}), proxyproto.ErrHeaderTooShort, proxyproto.ErrHeaderTooShort, proxyproto.FieldHeaderWords},
	{"255 words", "F4", append(header(map[int]byte{2: 255}), make([]byte, 252*4)...), nil, nil, 0},
	{"reserved byte 3", "F5", header(map[int]byte{3: 1}), proxyproto.ErrReservedBits, nil, proxyproto.FieldReserved},
	{"reserved byte 5", "F5", header(map[int]byte{5: 0x80}), proxyproto.ErrReservedBits, nil, proxyproto.FieldReserved},
	{"reserved flag 0x80", "F5", header(map[int]byte{6: 0x80}), proxyproto.ErrReservedBits, nil, proxyproto.FieldReserved},
	{"reserved flag 0x20", "F5", header(map[int]byte{6: 0x20}), proxyproto.ErrReservedBits, nil, proxyproto.FieldReserved},
	{"error flag on a command", "F6", header(map[int]byte{6: 0x10}), proxyproto.ErrErrorFlag, nil, proxyproto.FieldErrorFlag},
	{"error flag on a stream", "F6", header(map[int]byte{6: 0x12}), proxyproto.ErrErrorFlag, nil, proxyproto.FieldErrorFlag},
	{"error flag on a response", "F6", header(map[int]byte{6: 0x11}), nil, nil, 0},
	{"type 4", "F7", header(map[int]byte{6: 4}), proxyproto.ErrUnknownType, proxyproto.ErrUnknownType, proxyproto.FieldType},
	{"type 15", "F7", header(map[int]byte{6: 15}), proxyproto.ErrUnknownType, proxyproto.ErrUnknownType, proxyproto.FieldType},
	{"command 7", "F8", header(map[int]byte{7: 7}), proxyproto.ErrUnknownOpcode, proxyproto.ErrUnknownOpcode, proxyproto.FieldOpcode},
	{"response 7", "F8", header(map[int]byte{6: 1, 7: 7}), proxyproto.ErrUnknownOpcode, proxyproto.ErrUnknownOpcode, proxyproto.FieldOpcode},
	{"stream 4", "F8", header(map[int]byte{6: 2, 7: 4}), proxyproto.ErrUnknownOpcode, proxyproto.ErrUnknownOpcode, proxyproto.FieldOpcode},
	{"notification 1", "F8", header(map[int]byte{6: 3, 7: 1}), proxyproto.ErrUnknownOpcode, proxyproto.ErrUnknownOpcode, proxyproto.FieldOpcode},
	{"payload over the limit", "F9", withLength(proxyproto.MaxPayload + 1), proxyproto.ErrPayloadTooLarge, proxyproto.ErrPayloadTooLarge, proxyproto.FieldPayloadLength},
	{"payload of 4 GiB", "F9", withLength(1<<32 - 1), proxyproto.ErrPayloadTooLarge, proxyproto.ErrPayloadTooLarge, proxyproto.FieldPayloadLength},
	{"empty stream", "F12", nil, io.EOF, io.EOF, 0},
	{"half a header", "F12", header(nil)[:5], io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, 0},
	{"no extra words", "F12", header(map[int]byte{2: 4}), io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, 0},
	{"half of the extra words", "F12", append(header(map[int]byte{2: 5}), 1, 2, 3), io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, 0},
	{"no payload", "F12", header(map[int]byte{11: 1}), io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, 0},
	{"half a payload", "F12", append(header(map[int]byte{11: 4}), 1, 2), io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, 0},
}

// TestReadRules applies the rules to strict and to lenient readers.
func TestReadRules(t *testing.T) {
	for _, tt := range readRules {
		t.Run(tt.name, func(t *testing.T) {
			for _, lenient := range []bool{false, true} {
				want := tt.strict
				if lenient {
					want = tt.lenient
				}
				// In the original's only working split and in the worst one.
				for _, in := range []io.Reader{bytes.NewReader(tt.in), iotest.OneByteReader(bytes.NewReader(tt.in))} {
					r := proxyproto.NewReader(in)
					r.Lenient = lenient
					f, err := r.ReadFrame()
					if !errors.Is(err, want) {
						t.Fatalf("%s: lenient %t: got %v, want %v", tt.rule, lenient, err, want)
					}
					checkHeaderError(t, err, tt.field)
					if err == nil {
						// F14: whatever was accepted can be written.
						encode(t, f)
						continue
					}
					if _, again := r.ReadFrame(); !errors.Is(again, err) {
						t.Errorf("F15: second call returned %v, want %v", again, err)
					}
				}
			}
		})
	}
}

// TestReadRecordedFaults: the frames on which the original closed the connection.
func TestReadRecordedFaults(t *testing.T) {
	for name, want := range map[string]error{
		"bad-version": proxyproto.ErrVersion, "bad-opcode": proxyproto.ErrUnknownOpcode,
	} {
		if _, err := decode(readVector(t, name)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

func withLength(n uint32) []byte {
	b := header(nil)
	binary.BigEndian.PutUint32(b[8:], n)
	return b
}

func checkHeaderError(t *testing.T, err error, field proxyproto.Field) {
	t.Helper()
	he, ok := errors.AsType[*proxyproto.HeaderError](err)
	if !ok {
		return
	}
	if he.Field != field {
		t.Errorf("error %q is of field %v, want %v", err, he.Field, field)
	}
	if !strings.HasPrefix(err.Error(), "proxyproto: ") {
		t.Errorf("error %q does not name the package", err)
	}
}

// TestErrorTextsAreDistinct guards the texts that operators search for.
func TestErrorTextsAreDistinct(t *testing.T) {
	seen := make(map[string]proxyproto.Field)
	for field := proxyproto.FieldNone; field <= proxyproto.FieldPayloadLength; field++ {
		err := &proxyproto.HeaderError{Field: field, Got: 7, Type: proxyproto.TypeStream}
		if other, ok := seen[err.Error()]; ok {
			t.Errorf("fields %v and %v share the text %q", field, other, err)
		}
		seen[err.Error()] = field
		if (err.Unwrap() == nil) != (field == proxyproto.FieldNone) {
			t.Errorf("field %v wraps %v", field, err.Unwrap())
		}
	}
}

// TestReadIOError returns the transport's error as it is, and keeps it.
func TestReadIOError(t *testing.T) {
	broken := errors.New("broken")
	for _, prefix := range [][]byte{nil, header(nil)[:3], header(map[int]byte{11: 9}), header(map[int]byte{2: 9})} {
		r := proxyproto.NewReader(io.MultiReader(bytes.NewReader(prefix), iotest.ErrReader(broken)))
		for range 2 {
			if _, err := r.ReadFrame(); !errors.Is(err, broken) {
				t.Errorf("after %d bytes: got %v, want %v", len(prefix), err, broken)
			}
		}
	}
}

// TestLenientClearsFlags covers the one thing that Lenient changes in a frame.
func TestLenientClearsFlags(t *testing.T) {
	r := proxyproto.NewReader(bytes.NewReader(header(map[int]byte{3: 0xff, 6: 0xf0})))
	r.Lenient = true
	f, err := r.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if f.Error {
		t.Error("F6: the error flag of a command survived")
	}
	if got, want := encode(t, f), header(nil); !bytes.Equal(got, want) {
		t.Errorf("F14: written again as %x, want %x", got, want)
	}
}

// TestPayloadLifetime: a payload is valid until the next call, and a frame
// that follows a large one is whole.
func TestPayloadLifetime(t *testing.T) {
	var b bytes.Buffer
	w := proxyproto.NewWriter(&b)
	sizes := []int{0, 1, 5000, proxyproto.MaxPayload, 3, 128 << 10, 128<<10 + 1, 64 << 10, 0, 9}
	for i, n := range sizes {
		if err := w.WriteResponse(proxyproto.CmdHyper, bytes.Repeat([]byte{byte(i)}, n)); err != nil {
			t.Fatal(err)
		}
	}
	r := proxyproto.NewReader(&b)
	for i, n := range sizes {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Payload, bytes.Repeat([]byte{byte(i)}, n)) || int(f.PayloadLen) != n {
			t.Errorf("frame %d: %d bytes, want %d of value %d", i, len(f.Payload), n, i)
		}
	}
}
