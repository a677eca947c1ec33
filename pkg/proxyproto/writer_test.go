package proxyproto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// callCounter records each Write call.
type callCounter struct{ calls [][]byte }

func (c *callCounter) Write(p []byte) (int, error) {
	c.calls = append(c.calls, bytes.Clone(p))
	return len(p), nil
}

// TestWrite has the exact bytes for every Write method, each in one call (F11).
func TestWrite(t *testing.T) {
	tests := []struct {
		name  string
		write func(*proxyproto.Writer) error
		want  string // type, opcode, length and payload
	}{
		{"command without payload", func(w *proxyproto.Writer) error { return w.WriteCommand(proxyproto.CmdDisconnectShim, nil) }, "\x00\x05\x00\x00\x00\x00"},
		{"command with bytes", func(w *proxyproto.Writer) error { return w.WriteCommand(proxyproto.CmdHyper, []byte("{}")) }, "\x00\x03\x00\x00\x00\x02{}"},
		{"command with raw JSON", func(w *proxyproto.Writer) error {
			return w.WriteCommand(proxyproto.CmdHyper, json.RawMessage("{ }"))
		}, "\x00\x03\x00\x00\x00\x03{ }"},
		{"command with a struct", func(w *proxyproto.Writer) error {
			return w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: "A"})
		}, "\x00\x04\x00\x00\x00\x0d" + `{"token":"A"}`},
		{"C5: HTML characters", func(w *proxyproto.Writer) error {
			return w.WriteCommand(proxyproto.CmdHyper, proxyproto.Hyper{HyperName: "ping", Data: json.RawMessage(`"<&>"`)})
		}, "\x00\x03\x00\x00\x00\x2f" + `{"hyperName":"ping","tokens":null,"data":"<&>"}`},
		{"R1: empty response", func(w *proxyproto.Writer) error { return w.WriteResponse(proxyproto.CmdSignal, nil) }, "\x01\x06\x00\x00\x00\x00"},
		{"C2, C3: response", func(w *proxyproto.Writer) error {
			return w.WriteResponseJSON(proxyproto.CmdAttachVM, proxyproto.AttachVMResponse{IO: proxyproto.IOResponse{URL: "u"}})
		}, "\x01\x02\x00\x00\x00\x20" + `{"io":{"URL":"u","tokens":null}}`},
		{"R3: error", func(w *proxyproto.Writer) error { return w.WriteError(proxyproto.CmdHyper, errors.New("no")) }, "\x11\x03\x00\x00\x00\x0c" + `{"msg":"no"}`},
		{"stream", func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStderr, []byte("x")) }, "\x02\x02\x00\x00\x00\x01x"},
		{"S1: end of stdin", func(w *proxyproto.Writer) error { return w.WriteStream(proxyproto.StreamStdin, nil) }, "\x02\x00\x00\x00\x00\x00"},
		{"N1: exit", func(w *proxyproto.Writer) error { return w.WriteProcessExited(42) }, "\x03\x00\x00\x00\x00\x01*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c callCounter
			if err := tt.write(proxyproto.NewWriter(&c)); err != nil {
				t.Fatal(err)
			}
			if len(c.calls) != 1 {
				t.Fatalf("%d Write calls, want 1", len(c.calls))
			}
			want := "\x00\x02\x03\x00\x00\x00" + tt.want
			if diff := cmp.Diff(want, string(c.calls[0])); diff != "" {
				t.Errorf("bytes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWriteRefuses: what no reader takes is not written, and the writer is
// usable afterwards.
func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name  string
		write func(*proxyproto.Writer) error
		want  error // nil: any
	}{
		{"F6: error flag on a command", func(w *proxyproto.Writer) error {
			return w.WriteFrame(proxyproto.Frame{Header: proxyproto.Header{Error: true}})
		}, proxyproto.ErrErrorFlag},
		{"F7: type", func(w *proxyproto.Writer) error {
			return w.WriteFrame(proxyproto.Frame{Header: proxyproto.Header{Type: 4}})
		}, proxyproto.ErrUnknownType},
		{"F7: type with flag bits", func(w *proxyproto.Writer) error {
			return w.WriteFrame(proxyproto.Frame{Header: proxyproto.Header{Type: 0x11}})
		}, proxyproto.ErrUnknownType},
		{"F8: command", func(w *proxyproto.Writer) error { return w.WriteCommand(7, nil) }, proxyproto.ErrUnknownOpcode},
		{"F8: response", func(w *proxyproto.Writer) error { return w.WriteResponse(255, nil) }, proxyproto.ErrUnknownOpcode},
		{"F8: stream", func(w *proxyproto.Writer) error { return w.WriteStream(4, nil) }, proxyproto.ErrUnknownOpcode},
		{"F8: notification", func(w *proxyproto.Writer) error { return w.WriteNotification(1, nil) }, proxyproto.ErrUnknownOpcode},
		{"F9: payload", func(w *proxyproto.Writer) error {
			return w.WriteResponse(proxyproto.CmdHyper, make([]byte, proxyproto.MaxPayload+1))
		}, proxyproto.ErrPayloadTooLarge},
		{"F9: stream", func(w *proxyproto.Writer) error {
			return w.WriteStream(proxyproto.StreamStdin, make([]byte, proxyproto.MaxStreamPayload+1))
		}, proxyproto.ErrPayloadTooLarge},
		{"R3: no error", func(w *proxyproto.Writer) error { return w.WriteError(proxyproto.CmdHyper, nil) }, nil},
		{"command that is not JSON", func(w *proxyproto.Writer) error { return w.WriteCommand(proxyproto.CmdHyper, func() {}) }, nil},
		{"response that is not JSON", func(w *proxyproto.Writer) error { return w.WriteResponseJSON(proxyproto.CmdHyper, func() {}) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c callCounter
			w := proxyproto.NewWriter(&c)
			err := tt.write(w)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if len(c.calls) != 0 {
				t.Errorf("wrote %x", c.calls)
			}
			if err := w.WriteProcessExited(0); err != nil {
				t.Errorf("next frame: %v", err)
			}
		})
	}
}

// TestWriteFrameNormalises: F14, a long stream frame and a long header that
// were read are written.
func TestWriteFrameNormalises(t *testing.T) {
	payload := make([]byte, proxyproto.MaxStreamPayload+1)
	f := proxyproto.Frame{
		Header:  proxyproto.Header{Type: proxyproto.TypeStream, HeaderWords: 200, PayloadLen: 7},
		Payload: payload,
	}
	got, err := decode(encode(t, f))
	if err != nil {
		t.Fatal(err)
	}
	f.HeaderWords, f.PayloadLen = 3, uint32(len(payload))
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

type shortWriter struct{ err error }

func (s shortWriter) Write(p []byte) (int, error) { return len(p) - 1, s.err }

// TestWriteIOError: an error of the transport is final.
func TestWriteIOError(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct{ got, want error }{{nil, io.ErrShortWrite}, {broken, broken}} {
		w := proxyproto.NewWriter(shortWriter{tt.got})
		for range 2 {
			if err := w.WriteProcessExited(0); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		}
	}
}

// TestErrorsSurvive sends errors through a response.
func TestErrorsSurvive(t *testing.T) {
	classified := &proxyproto.RemoteError{Command: proxyproto.CmdHyper, Msg: "no such file", Class: "not_found", ExitStatus: 127}
	tests := []struct {
		name string
		in   error
		want proxyproto.RemoteError
	}{
		{"plain", errors.New("no"), proxyproto.RemoteError{Msg: "no"}},
		{"classified", classified, proxyproto.RemoteError{Msg: "no such file", Class: "not_found", ExitStatus: 127}},
		{"wrapped", fmt.Errorf("start c1: %w", classified), proxyproto.RemoteError{
			Msg: "start c1: proxy: Hyper: no such file", Class: "not_found", ExitStatus: 127,
		}},
		{"empty", errors.New(""), proxyproto.RemoteError{}},
		{"R4: long", errors.New(strings.Repeat("x", 1<<20)), proxyproto.RemoteError{Msg: strings.Repeat("x", 32<<10)}},
		{"R4: cut within a rune", errors.New("x" + strings.Repeat("é", 1<<20)), proxyproto.RemoteError{Msg: "x" + strings.Repeat("é", 16<<10-1)}},
		{"not UTF-8", errors.New("a\xffb"), proxyproto.RemoteError{Msg: "a\uFFFDb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := proxyproto.NewWriter(&b).WriteError(proxyproto.CmdSignal, tt.in); err != nil {
				t.Fatal(err)
			}
			f, err := decode(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Command = proxyproto.CmdSignal
			got, ok := errors.AsType[*proxyproto.RemoteError](f.Err())
			if !ok {
				t.Fatalf("Err() = %v", f.Err())
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got.Error() == "" || !utf8.ValidString(got.Error()) {
				t.Errorf("text %q", got.Error())
			}
		})
	}
}

// TestErrOfForeignPayloads: an error response need not be JSON.
func TestErrOfForeignPayloads(t *testing.T) {
	for payload, want := range map[string]string{
		"":                   "proxy: Hyper: the proxy gave no reason",
		"{":                  "proxy: Hyper: {",
		"a\xff":              "proxy: Hyper: a\uFFFD",
		`{"msg":"m","x":[]}`: "proxy: Hyper: m",
		`{"msg":3}`:          `proxy: Hyper: {"msg":3}`,
	} {
		f := proxyproto.Frame{
			Header:  proxyproto.Header{Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdHyper), Error: true},
			Payload: []byte(payload),
		}
		if err := f.Err(); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %q", payload, err, want)
		}
		f.Error = false
		if err := f.Err(); err != nil {
			t.Errorf("%q without the flag: %v", payload, err)
		}
	}
}
