package proxyproto_test

import (
	"encoding/base64"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestSignalValidate: C6 to C8. The texts are those of the original proxy.
func TestSignalValidate(t *testing.T) {
	tests := []struct {
		name string
		in   proxyproto.Signal
		want string
	}{
		{"C6: null", proxyproto.Signal{}, ""},
		{"C6: kill", proxyproto.Signal{SignalNumber: 9}, ""},
		{"C6: last", proxyproto.Signal{SignalNumber: 30}, ""},
		{"C6: 31", proxyproto.Signal{SignalNumber: 31}, "invalid signal number 31"},
		{"C6: real-time", proxyproto.Signal{SignalNumber: 64}, "invalid signal number 64"},
		{"C6: negative", proxyproto.Signal{SignalNumber: -1}, "invalid signal number -1"},
		{"C6 before C8", proxyproto.Signal{SignalNumber: 99, Rows: 1}, "invalid signal number 99"},
		{"C7: size", proxyproto.Signal{SignalNumber: 28, Columns: 100, Rows: 40}, ""},
		{"C7: largest size", proxyproto.Signal{SignalNumber: 28, Columns: 65535, Rows: 65535}, ""},
		{"C7: no size", proxyproto.Signal{SignalNumber: 28}, "received SIGWINCH but terminal size is invalid (0,0)"},
		{"C7: no rows", proxyproto.Signal{SignalNumber: 28, Columns: 80}, "received SIGWINCH but terminal size is invalid (80,0)"},
		{"C7: no columns", proxyproto.Signal{SignalNumber: 28, Rows: 24}, "received SIGWINCH but terminal size is invalid (0,24)"},
		{"C7: negative", proxyproto.Signal{SignalNumber: 28, Columns: -1, Rows: 24}, "received SIGWINCH but terminal size is invalid (-1,24)"},
		{"C7: too wide", proxyproto.Signal{SignalNumber: 28, Columns: 65536, Rows: 24}, "received SIGWINCH but terminal size is invalid (65536,24)"},
		{"C8: size", proxyproto.Signal{SignalNumber: 1, Columns: 3, Rows: 4}, "received a terminal size (3,4) for signal hangup"},
		{"C8: rows", proxyproto.Signal{SignalNumber: 15, Rows: 1}, "received a terminal size (0,1) for signal terminated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, tt.in.Validate(), tt.want) })
	}
}

// checkError compares an error's text, "" standing for nil.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
}

// TestRegisterVMValidate: C1.
func TestRegisterVMValidate(t *testing.T) {
	for _, tt := range []struct {
		in   proxyproto.RegisterVM
		want string
	}{
		{proxyproto.RegisterVM{ContainerID: "a", CtlSerial: "b", IOSerial: "c"}, ""},
		{proxyproto.RegisterVM{ContainerID: "a", IOSerial: "c"}, "malformed RegisterVM command: missing ctlSerial"},
		{proxyproto.RegisterVM{}, "malformed RegisterVM command: missing containerId, ctlSerial, ioSerial"},
	} {
		checkError(t, tt.in.Validate(), tt.want)
	}
}

// TestLogEntryValidate: S2.
func TestLogEntryValidate(t *testing.T) {
	valid := proxyproto.LogEntry{Source: proxyproto.SourceShim, Level: proxyproto.LevelInfo, Msg: "x"}
	checkError(t, valid.Validate(), "")
	for _, tt := range []struct {
		change func(*proxyproto.LogEntry)
		want   string
	}{
		{func(e *proxyproto.LogEntry) { e.Source = proxyproto.SourceRuntime }, ""},
		{func(e *proxyproto.LogEntry) { e.Level = proxyproto.LevelDebug }, ""},
		{func(e *proxyproto.LogEntry) { e.Level = proxyproto.LevelError }, ""},
		{func(e *proxyproto.LogEntry) { e.Source = "" }, `invalid log entry: unknown source ""`},
		{func(e *proxyproto.LogEntry) { e.Source = "bogus" }, `invalid log entry: unknown source "bogus"`},
		{func(e *proxyproto.LogEntry) { e.Level = "" }, `invalid log entry: unknown level ""`},
		{func(e *proxyproto.LogEntry) { e.Level = "fatal" }, `invalid log entry: unknown level "fatal"`},
		{func(e *proxyproto.LogEntry) { e.Level = "Info" }, `invalid log entry: unknown level "Info"`},
		{func(e *proxyproto.LogEntry) { e.Msg = "" }, "invalid log entry: no message"},
	} {
		e := valid
		tt.change(&e)
		checkError(t, e.Validate(), tt.want)
	}
}

// TestParseProcessExited: N1.
func TestParseProcessExited(t *testing.T) {
	for payload, want := range map[string]string{
		"\x00": "", "\xff": "",
		"":   "decode ProcessExited: payload of 0 bytes, want 1",
		"00": "decode ProcessExited: payload of 2 bytes, want 1",
	} {
		status, err := proxyproto.ParseProcessExited([]byte(payload))
		checkError(t, err, want)
		if err == nil && status != payload[0] {
			t.Errorf("%q: status %d", payload, status)
		}
	}
}

// TestDecode: an empty payload is not an empty object.
func TestDecode(t *testing.T) {
	f := proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdAttachVM)}}
	var v proxyproto.AttachVM
	checkError(t, f.Decode(&v), "decode command AttachVM: unexpected end of JSON input")
	f.Payload = []byte(`{"containerId":"a","unknown":{}}`)
	checkError(t, f.Decode(&v), "")
	if v.ContainerID != "a" {
		t.Errorf("decoded %+v", v)
	}
}

// TestTokens: T1.
func TestTokens(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		token := proxyproto.NewToken()
		b, err := base64.URLEncoding.DecodeString(token)
		if err != nil || len(b) != 32 || seen[token] {
			t.Fatalf("token of %d bytes, %v, seen %t", len(b), err, seen[token])
		}
		seen[token] = true
	}
}

// TestStrings pins the names, which logs and error texts are made of.
func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		proxyproto.TypeNotification.String():    "notification",
		proxyproto.Type(4).String():             "type(4)",
		proxyproto.CmdDisconnectShim.String():   "DisconnectShim",
		proxyproto.Command(7).String():          "command(7)",
		proxyproto.StreamLog.String():           "log",
		proxyproto.Stream(9).String():           "stream(9)",
		proxyproto.NotifyProcessExited.String(): "ProcessExited",
		proxyproto.Notification(1).String():     "notification(1)",
		proxyproto.FieldErrorFlag.String():      "error flag",
		proxyproto.Field(99).String():           "field(99)",
		proxyproto.SourceShim.String():          "shim",
		proxyproto.LevelWarn.String():           "warn",
		proxyproto.Frame{}.String():             "command RegisterVM, 0 bytes",
		proxyproto.Frame{Payload: []byte("secret"), Header: proxyproto.Header{
			Type: proxyproto.TypeResponse, Opcode: 3, Error: true,
		}}.String(): "response Hyper (error), 6 bytes",
		proxyproto.Header{Type: 9, Opcode: 8}.String(): "type(9) opcode(8)",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
