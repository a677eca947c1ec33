package proxyproto_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// readVector returns the bytes of testdata/vectors/name.hex: hexadecimal with
// comments from "#" to the end of the line.
func readVector(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "vectors", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// recorded is one line of testdata/session.hex.
type recorded struct {
	toProxy bool
	conn    string
	frame   []byte
}

func readSession(t testing.TB) []recorded {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "session.hex"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []recorded
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] == "#" {
			continue
		}
		b, err := hex.DecodeString(fields[3])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, recorded{fields[0] == ">", fields[1], b})
	}
	if len(lines) < 100 {
		t.Fatalf("only %d frames in the session", len(lines))
	}
	return lines
}

// decode reads exactly one frame from b.
func decode(b []byte) (proxyproto.Frame, error) {
	r := proxyproto.NewReader(bytes.NewReader(b))
	f, err := r.ReadFrame()
	if err != nil {
		return f, err
	}
	f.Payload = bytes.Clone(f.Payload)
	if next, err := r.ReadFrame(); !errors.Is(err, io.EOF) {
		return f, errors.Join(errors.New("bytes after the frame"), err, next.Err())
	}
	return f, nil
}

func encode(t testing.TB, f proxyproto.Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := proxyproto.NewWriter(&b).WriteFrame(f); err != nil {
		t.Fatalf("WriteFrame(%v): %v", f, err)
	}
	return b.Bytes()
}

const (
	socket = "/run/cc/vm/0/run-cc-agent-3429/"
	token1 = "-Gh0uQxzpVkzq6hdxhImZ_5YpIY9d8WGZ3-VFqhU_Wk="
)

// payloads are the values that the vectors stand for; a nil value is a vector
// without payload, a []byte one with raw bytes.
var payloads = map[string]any{
	"command-registervm": proxyproto.RegisterVM{
		ContainerID: "pod1", CtlSerial: socket + "ctl-r.sock", IOSerial: socket + "tty-r.sock",
	},
	"command-unregistervm":         proxyproto.UnregisterVM{ContainerID: "pod1"},
	"command-attachvm":             proxyproto.AttachVM{ContainerID: "nope", NumIOStreams: 1},
	"command-attachvm-long-header": proxyproto.AttachVM{ContainerID: "pod1"},
	"command-hyper": proxyproto.Hyper{
		HyperName: "startpod", Data: json.RawMessage(`{"hostname":"pod1","shareDir":"hyperShared"}`),
	},
	"command-hyper-no-data":  proxyproto.Hyper{HyperName: "ping", Tokens: []string{}},
	"command-connectshim":    proxyproto.ConnectShim{Token: token1},
	"command-disconnectshim": nil,
	"command-signal":         proxyproto.Signal{SignalNumber: 28},
	"command-signal-size":    proxyproto.Signal{SignalNumber: 1, Columns: 3, Rows: 3},
	"response-registervm": proxyproto.RegisterVMResponse{
		IO: proxyproto.IOResponse{URL: "unix://" + socket + "p.sock"},
	},
	"response-registervm-error": proxyproto.ErrorResponse{Msg: "pod1: container already registered"},
	"response-unregistervm":     nil,
	"response-attachvm": proxyproto.AttachVMResponse{
		IO: proxyproto.IOResponse{URL: "unix://" + socket + "p.sock", Tokens: []string{token1}},
	},
	"response-attachvm-no-tokens": proxyproto.AttachVMResponse{
		IO: proxyproto.IOResponse{URL: "unix://" + socket + "p.sock"},
	},
	"response-attachvm-error":    proxyproto.ErrorResponse{Msg: "unknown containerID: nope"},
	"response-hyper":             nil,
	"response-hyper-error":       proxyproto.ErrorResponse{Msg: "client not attached to a vm"},
	"response-connectshim":       nil,
	"response-connectshim-error": proxyproto.ErrorResponse{Msg: "token already claimed: " + token1},
	"response-signal":            nil,
	"response-signal-error": proxyproto.ErrorResponse{
		Msg: "received SIGWINCH but terminal size is invalid (0,0)",
	},
	"stream-log": proxyproto.LogEntry{
		Source: proxyproto.SourceRuntime, ContainerID: "pod1", Level: proxyproto.LevelInfo, Msg: "hello log",
	},
	"stream-stdin":               []byte("line1\n"),
	"stream-stdin-eof":           nil,
	"stream-stdout":              []byte("hello\n"),
	"stream-stderr":              []byte("oops\n"),
	"notification-processexited": []byte{42},
}

// headers are the headers that the vectors stand for, by the vectors' names
// without what follows the opcode.
var headers = map[string]proxyproto.Header{
	"command-registervm":         {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdRegisterVM)},
	"command-unregistervm":       {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdUnregisterVM)},
	"command-attachvm":           {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdAttachVM)},
	"command-hyper":              {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdHyper)},
	"command-connectshim":        {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdConnectShim)},
	"command-disconnectshim":     {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdDisconnectShim)},
	"command-signal":             {Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdSignal)},
	"response-registervm":        {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdRegisterVM)},
	"response-unregistervm":      {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdUnregisterVM)},
	"response-attachvm":          {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdAttachVM)},
	"response-hyper":             {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdHyper)},
	"response-connectshim":       {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdConnectShim)},
	"response-signal":            {Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdSignal)},
	"stream-stdin":               {Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdin)},
	"stream-stdout":              {Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdout)},
	"stream-stderr":              {Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStderr)},
	"stream-log":                 {Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamLog)},
	"notification-processexited": {Type: proxyproto.TypeNotification, Opcode: uint8(proxyproto.NotifyProcessExited)},
}

// TestVectors holds every recorded vector against a Go value, both ways.
func TestVectors(t *testing.T) {
	for name, payload := range payloads {
		t.Run(name, func(t *testing.T) {
			raw := readVector(t, name)
			got, err := decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.SplitN(name, "-", 3)
			want := headers[parts[0]+"-"+parts[1]]
			want.Error = strings.HasSuffix(name, "-error")
			want.HeaderWords = raw[2]
			want.PayloadLen = uint32(len(raw) - 4*int(raw[2]))
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			checkPayload(t, payload, got)

			// Written again, the frame is what was recorded, with a header of
			// three words (F14).
			raw = append(append([]byte{raw[0], raw[1], 3}, raw[3:12]...), raw[4*int(raw[2]):]...)
			if diff := cmp.Diff(raw, encode(t, got)); diff != "" {
				t.Errorf("encoded again (-want +got):\n%s", diff)
			}
		})
	}
}

// checkPayload decodes f's payload into a value like want and compares.
func checkPayload(t *testing.T, want any, f proxyproto.Frame) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if len(f.Payload) != 0 {
			t.Errorf("payload %q, want none", f.Payload)
		}
	case []byte:
		if diff := cmp.Diff(want, f.Payload); diff != "" {
			t.Errorf("payload (-want +got):\n%s", diff)
		}
	case proxyproto.RegisterVM:
		compareJSON(t, want, f)
	case proxyproto.UnregisterVM:
		compareJSON(t, want, f)
	case proxyproto.AttachVM:
		compareJSON(t, want, f)
	case proxyproto.Hyper:
		compareJSON(t, want, f)
	case proxyproto.ConnectShim:
		compareJSON(t, want, f)
	case proxyproto.Signal:
		compareJSON(t, want, f)
	case proxyproto.RegisterVMResponse:
		compareJSON(t, want, f)
	case proxyproto.AttachVMResponse:
		compareJSON(t, want, f)
	case proxyproto.LogEntry:
		compareJSON(t, want, f)
	case proxyproto.ErrorResponse:
		compareJSON(t, want, f)
	default:
		t.Fatalf("no comparison for %T", want)
	}
}

// compareJSON checks that f decodes into want, and want encodes into the JSON
// value that was recorded.
func compareJSON[T any](t *testing.T, want T, f proxyproto.Frame) {
	t.Helper()
	var got T
	if err := f.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	encoded, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(jsonValue(t, f.Payload), jsonValue(t, encoded)); diff != "" {
		t.Errorf("encoded payload (-recorded +ours):\n%s", diff)
	}
}

func jsonValue(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return v
}

// TestRecordedSession decodes every frame of a session of the original proxy
// and shim, and encodes it again.
func TestRecordedSession(t *testing.T) {
	refused := 0
	for i, line := range readSession(t) {
		f, err := decode(line.frame)
		if errors.Is(err, proxyproto.ErrVersion) || errors.Is(err, proxyproto.ErrUnknownOpcode) {
			refused++ // the original closed the connection here, too
			continue
		}
		if err != nil {
			t.Errorf("frame %d %x: %v", i, line.frame, err)
			continue
		}
		want := line.frame
		if words := want[2]; words > 3 {
			want = append(append([]byte{0, 2, 3}, want[3:12]...), want[4*words:]...)
		}
		if got := encode(t, f); !bytes.Equal(got, want) {
			t.Errorf("frame %d encoded again\n got %x\nwant %x", i, got, want)
		}
		if f.Error != (f.Err() != nil) {
			t.Errorf("frame %d: Err() = %v", i, f.Err())
		}
		checkSessionPayload(t, f)
	}
	if refused != 2 {
		t.Errorf("%d frames refused, want 2", refused)
	}
}

// checkSessionPayload checks that our structs keep every key of a recorded payload.
func checkSessionPayload(t *testing.T, f proxyproto.Frame) {
	t.Helper()
	var v any
	switch {
	case len(f.Payload) == 0 || f.Type == proxyproto.TypeNotification:
		return
	case f.Error:
		v = new(proxyproto.ErrorResponse)
	case f.Type == proxyproto.TypeResponse:
		v = new(proxyproto.AttachVMResponse)
	case f.Type == proxyproto.TypeStream && f.Stream() == proxyproto.StreamLog:
		v = new(proxyproto.LogEntry)
	case f.Type == proxyproto.TypeStream:
		return
	default:
		v = map[proxyproto.Command]any{
			proxyproto.CmdRegisterVM:   new(proxyproto.RegisterVM),
			proxyproto.CmdUnregisterVM: new(proxyproto.UnregisterVM),
			proxyproto.CmdAttachVM:     new(proxyproto.AttachVM),
			proxyproto.CmdHyper:        new(proxyproto.Hyper),
			proxyproto.CmdConnectShim:  new(proxyproto.ConnectShim),
			proxyproto.CmdSignal:       new(proxyproto.Signal),
		}[f.Command()]
	}
	if err := f.Decode(v); err != nil {
		t.Error(err)
		return
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(jsonValue(t, f.Payload), jsonValue(t, encoded)); diff != "" {
		t.Errorf("%v: payload (-recorded +ours):\n%s", f, diff)
	}
}

// TestRecordedSessionSplits reads each direction of each connection as one
// stream, in the smallest pieces and in odd ones (F2, F10).
func TestRecordedSessionSplits(t *testing.T) {
	type key struct {
		toProxy bool
		conn    string
	}
	streams := make(map[key][]byte)
	counts := make(map[key]int)
	for _, line := range readSession(t) {
		if _, err := decode(line.frame); err != nil {
			continue
		}
		k := key{line.toProxy, line.conn}
		streams[k] = append(streams[k], line.frame...)
		counts[k]++
	}
	for k, stream := range streams {
		for name, split := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader,
			"halves": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
		} {
			r := proxyproto.NewReader(split(bytes.NewReader(stream)))
			n := 0
			var err error
			for ; err == nil; n++ {
				_, err = r.ReadFrame()
			}
			if n-1 != counts[k] || !errors.Is(err, io.EOF) {
				t.Errorf("%v, %s: %d frames, then %v; want %d, then EOF", k, name, n-1, err, counts[k])
			}
		}
	}
}
