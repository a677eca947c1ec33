package hyperstart_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// ctlHeader and ttyHeader make headers with any length field.
func ctlHeader(code, length uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, code), length)
}

func ttyHeader(seq uint64, length uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, seq), length)
}

// TestReadRules: M2 to M4 on both ports.
func TestReadRules(t *testing.T) {
	tests := []struct {
		name string
		tty  bool
		in   []byte
		want error // nil: accepted
	}{
		{"M1: empty", false, ctlHeader(8, 8), nil},
		{"M1: empty", true, ttyHeader(3, 12), nil},
		{"M2: zero", false, ctlHeader(1, 0), hyperstart.ErrTooShort},
		{"M2: four", false, ctlHeader(1, 4), hyperstart.ErrTooShort},
		{"M2: seven", false, ctlHeader(1, 7), hyperstart.ErrTooShort},
		{"M2: zero", true, ttyHeader(1, 0), hyperstart.ErrTooShort},
		{"M2: eleven", true, ttyHeader(1, 11), hyperstart.ErrTooShort},
		{"M3: limit", false, append(ctlHeader(9, 8+hyperstart.MaxCtlPayload), make([]byte, hyperstart.MaxCtlPayload)...), nil},
		{"M3: over the limit", false, ctlHeader(9, 8+hyperstart.MaxCtlPayload+1), hyperstart.ErrTooLong},
		{"M3: 4 GiB", false, ctlHeader(9, 1<<32-1), hyperstart.ErrTooLong},
		{"M3: limit", true, append(ttyHeader(9, 12+hyperstart.MaxTTYPayload), make([]byte, hyperstart.MaxTTYPayload)...), nil},
		{"M3: over the limit", true, ttyHeader(9, 12+hyperstart.MaxTTYPayload+1), hyperstart.ErrTooLong},
		{"M3: 4 GiB", true, ttyHeader(1<<64-1, 1<<32-1), hyperstart.ErrTooLong},
		{"M4: end", false, nil, io.EOF},
		{"M4: end", true, nil, io.EOF},
		{"M4: half a header", false, ctlHeader(9, 8)[:5], io.ErrUnexpectedEOF},
		{"M4: half a header", true, ttyHeader(9, 12)[:11], io.ErrUnexpectedEOF},
		{"M4: no payload", false, ctlHeader(9, 9), io.ErrUnexpectedEOF},
		{"M4: half a payload", true, append(ttyHeader(9, 16), 1, 2), io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s, tty %t", tt.name, tt.tty), func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.in), iotest.HalfReader(bytes.NewReader(tt.in))} {
				var err error
				if tt.tty {
					_, _, err = hyperstart.NewTTYReader(r).Read()
				} else {
					_, _, err = hyperstart.NewCtlReader(r).Read()
				}
				if !errors.Is(err, tt.want) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				checkMessageError(t, err, tt.tty, tt.in)
			}
		})
	}
}

// checkMessageError checks that an error about a length says which message.
func checkMessageError(t *testing.T, err error, tty bool, in []byte) {
	t.Helper()
	if !errors.Is(err, hyperstart.ErrTooLong) && !errors.Is(err, hyperstart.ErrTooShort) {
		return
	}
	got, ok := errors.AsType[*hyperstart.MessageError](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	want := &hyperstart.MessageError{Channel: "ctl", Err: got.Err}
	if tty {
		want.Channel, want.Code, want.Length = "tty", binary.BigEndian.Uint64(in), binary.BigEndian.Uint32(in[8:])
	} else {
		want.Code, want.Length = uint64(binary.BigEndian.Uint32(in)), binary.BigEndian.Uint32(in[4:])
	}
	if *got != *want || !strings.Contains(err.Error(), want.Channel) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestHostileLengths: M5, a length costs little before its bytes are there,
// and a large message is not kept for ever.
func TestHostileLengths(t *testing.T) {
	in := ctlHeader(9, 8+hyperstart.MaxCtlPayload)
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := hyperstart.NewCtlReader(bytes.NewReader(in)).Read(); err == nil {
				b.Fatal("read a message that is not there")
			}
		}
	}).AllocedBytesPerOp()
	if got > 128<<10 {
		t.Errorf("%d bytes for a length of %d", got, hyperstart.MaxCtlPayload)
	}
}

// TestReadAfterLarge: messages of all sizes in one stream are whole.
func TestReadAfterLarge(t *testing.T) {
	sizes := []int{1, 0, hyperstart.MaxCtlPayload, 3, 64 << 10, 128<<10 + 1, 128 << 10, 0}
	var stream []byte
	for i, n := range sizes {
		stream = hyperstart.AppendCtl(stream, hyperstart.Code(i), bytes.Repeat([]byte{byte(i)}, n))
	}
	r := hyperstart.NewCtlReader(bytes.NewReader(stream))
	for i, n := range sizes {
		code, payload, err := r.Read()
		if err != nil || int(code) != i || !bytes.Equal(payload, bytes.Repeat([]byte{byte(i)}, n)) {
			t.Errorf("message %d: code %v, %d bytes, %v; want %d bytes", i, code, len(payload), err, n)
		}
	}
}

// TestReadIOError: errors of the port are returned as they are.
func TestReadIOError(t *testing.T) {
	broken := errors.New("broken")
	for _, prefix := range [][]byte{nil, {0}, ctlHeader(1, 9)} {
		r := io.MultiReader(bytes.NewReader(prefix), iotest.ErrReader(broken))
		if _, _, err := hyperstart.NewCtlReader(r).Read(); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", len(prefix), err)
		}
	}
}

// TestPutTTYHeader: a header in place makes the same message as AppendTTY.
func TestPutTTYHeader(t *testing.T) {
	b := make([]byte, hyperstart.TTYHeaderLen, 20)
	hyperstart.PutTTYHeader(b, 1<<40, 5)
	b = append(b, "hello"...)
	if diff := cmp.Diff(hyperstart.AppendTTY(nil, 1<<40, []byte("hello")), b); diff != "" {
		t.Error(diff)
	}
}

// TestCall: H7, H8.
func TestCall(t *testing.T) {
	b := hyperstart.AppendCall([]byte("x"), 7, hyperstart.Ping, []byte("payload"))
	if want := "x\x00\x00\x00\x07\x00\x00\x00\x0cpayload"; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	ticket, code, payload, err := hyperstart.ParseCall(b[1:])
	if ticket != 7 || code != hyperstart.Ping || string(payload) != "payload" || err != nil {
		t.Errorf("got %d, %v, %q, %v", ticket, code, payload, err)
	}
	if _, _, payload, err := hyperstart.ParseCall(b[1:9]); len(payload) != 0 || err != nil {
		t.Errorf("without payload: %q, %v", payload, err)
	}
	for n := range 8 {
		if _, _, _, err := hyperstart.ParseCall(b[1 : 1+n]); err == nil {
			t.Errorf("%d bytes were parsed", n)
		}
	}
}

// TestCredits: K3, K5.
func TestCredits(t *testing.T) {
	want := []hyperstart.Credit{{Seq: 3, Bytes: 1}, {Seq: 1<<64 - 1, Bytes: 1<<32 - 1}}
	var payload []byte
	for _, c := range want {
		b := hyperstart.AppendCredit(nil, c)
		seq, p, err := hyperstart.NewTTYReader(bytes.NewReader(b)).Read()
		if seq != hyperstart.CreditSeq || err != nil {
			t.Fatalf("sequence %d, %v", seq, err)
		}
		payload = append(payload, p...)
	}
	var got []hyperstart.Credit
	collect := func(c hyperstart.Credit) { got = append(got, c) }
	if err := hyperstart.ParseCredits(payload, collect); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("credits (-want +got):\n%s", diff)
	}
	got = nil
	for _, n := range []int{1, 11, 13, 23} {
		if err := hyperstart.ParseCredits(payload[:min(n, len(payload))], collect); err == nil || got != nil {
			t.Errorf("%d bytes: %v, %v", n, got, err)
		}
	}
	if err := hyperstart.ParseCredits(nil, collect); err != nil || got != nil {
		t.Errorf("no record: %v, %v", got, err)
	}
}

// TestParseError: H5.
func TestParseError(t *testing.T) {
	ccv2, hyperhq := hyperstart.DialectCCv2, hyperstart.DialectHyperhq
	long := strings.Repeat("é", 4096)
	longReply, err := json.Marshal(hyperstart.ErrorReply{Message: long})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		dialect hyperstart.Dialect
		payload string
		want    hyperstart.CommandError
	}{
		{"nothing", hyperhq, "", hyperstart.CommandError{}},
		{"C text", hyperhq, "no such container\x00", hyperstart.CommandError{Message: "no such container"}},
		{"only NUL", hyperhq, "\x00\x00", hyperstart.CommandError{}},
		{"Go text", hyperstart.DialectClearGo, "Pod not started", hyperstart.CommandError{Message: "Pod not started"}},
		{"JSON of another dialect", hyperhq, `{"message":"m"}`, hyperstart.CommandError{Message: `{"message":"m"}`}},
		{"not UTF-8", hyperhq, "a\xff\xfeb", hyperstart.CommandError{Message: "a?b"}},
		{"long", hyperhq, long, hyperstart.CommandError{Message: long[:4096]}},
		{"cut within a rune", hyperhq, "x" + long, hyperstart.CommandError{Message: "x" + long[:4094]}},
		{"ccv2", ccv2, `{"class":"not_found","message":"m","exitStatus":127}`, hyperstart.CommandError{Class: hyperstart.ClassNotFound, Message: "m", ExitStatus: 127}},
		{"ccv2: unknown keys", ccv2, `{"message":"m","x":1}`, hyperstart.CommandError{Message: "m"}},
		{"ccv2: unknown class", ccv2, `{"class":"root","message":"m"}`, hyperstart.CommandError{Message: "m"}},
		{"ccv2: no message", ccv2, `{"class":"not_found"}`, hyperstart.CommandError{Message: `{"class":"not_found"}`}},
		{"ccv2: status too large", ccv2, `{"message":"m","exitStatus":300}`, hyperstart.CommandError{Message: `{"message":"m","exitStatus":300}`}},
		{"ccv2: text", ccv2, "panic", hyperstart.CommandError{Message: "panic"}},
		{"ccv2: long", ccv2, string(longReply), hyperstart.CommandError{Message: long[:4096]}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Code = hyperstart.NewContainer
			got := hyperstart.ParseError(tt.dialect, hyperstart.NewContainer, []byte(tt.payload))
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if text := got.Error(); !strings.HasPrefix(text, "guest: NEWCONTAINER: ") || !utf8.ValidString(text) {
				t.Errorf("text %q", text)
			}
		})
	}
}

// TestWriteFile: P6.
func TestWriteFile(t *testing.T) {
	const content = "}\x00{content}"
	for head, want := range map[string]hyperstart.FileRequest{
		`{"container":"c2","file":"/tmp/<wf>"}`: {Container: "c2", File: "/tmp/<wf>"},
		` {"file":"/tmp/a}b", "new":{}}`:        {File: "/tmp/a}b"},
	} {
		got, rest, err := hyperstart.ParseWriteFile([]byte(head + content))
		if err != nil || got != want || string(rest) != content {
			t.Errorf("%s: got %+v, %q, %v", head, got, rest, err)
		}
	}
	for _, bad := range []string{"", "{", "}", `{"file":1}`} {
		_, _, err := hyperstart.ParseWriteFile([]byte(bad))
		if e, ok := errors.AsType[*hyperstart.GuestError](err); !ok || e.Class != hyperstart.ClassInvalidArgument {
			t.Errorf("%q: got %v, want an invalid argument", bad, err)
		}
	}
}

// TestOmittedKeys: P1, what a C agent would refuse is absent.
func TestOmittedKeys(t *testing.T) {
	for want, v := range map[string]any{
		`{"hostname":"h"}`: hyperstart.StartPodRequest{Hostname: "h"},
		`{"id":"c","process":{"terminal":false,"stdio":3,"stderr":4,"args":["a"]}}`: hyperstart.NewContainerRequest{
			ID: "c", Process: &hyperstart.Process{Stdio: 3, Stderr: 4, Args: []string{"a"}},
		},
		`{"container":"c","process":{"id":"p","terminal":true,"stdio":3}}`: hyperstart.ExecCmdRequest{
			Container: "c", Process: &hyperstart.Process{ID: "p", Terminal: true, Stdio: 3},
		},
		`{"source":"s","path":"/p","readOnly":false,"dockerVolume":false}`: hyperstart.FSMap{Source: "s", Path: "/p"},
		`{"device":"eth0"}`:  hyperstart.Interface{Device: "eth0"},
		`{"dest":"default"}`: hyperstart.Route{Dest: "default"},
		`{"message":""}`:     hyperstart.ErrorReply{},
	} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
