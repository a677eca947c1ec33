package wiretap_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestCounts counts each kind, also of codes and frames that there are not.
func TestCounts(t *testing.T) {
	tap := new(wiretap.Tap)
	tap.Ctl(false, hyperstart.Call, hyperstart.AppendCall(nil, 1, hyperstart.ExecCmd, []byte("{}")))
	tap.Ctl(false, hyperstart.Call, []byte("short"))
	tap.Ctl(true, hyperstart.Code(4711), nil)
	tap.TTY(true, 3, []byte("hello"))
	tap.TTY(false, hyperstart.CreditSeq, make([]byte, 12))
	tap.Frame(1, proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdHyper)}, Payload: []byte("{}")})
	raw, err := proxyproto.AppendFrame(nil, proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdout)}, Payload: []byte("out")})
	if err != nil {
		t.Fatal(err)
	}
	tap.RawFrame(1, raw)
	tap.RawFrame(1, []byte("no frame"))
	want := []wiretap.Count{
		{Layer: wiretap.Ctl, Kind: "EXECCMD", Messages: 1, Bytes: 18},
		{Layer: wiretap.Ctl, Kind: "CALL", Messages: 1, Bytes: 13},
		{Layer: wiretap.Ctl, ToHost: true, Kind: "other", Messages: 1, Bytes: 8},
		{Layer: wiretap.TTY, ToHost: true, Kind: "data", Messages: 1, Bytes: 17},
		{Layer: wiretap.TTY, Kind: "credit", Messages: 1, Bytes: 24},
		{Layer: wiretap.Frame, Kind: "command Hyper", Messages: 1, Bytes: 14},
		{Layer: wiretap.Frame, ToHost: true, Kind: "stream stdout", Messages: 1, Bytes: 15},
	}
	if diff := cmp.Diff(want, tap.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	var none *wiretap.Tap
	none.Ctl(false, hyperstart.Ping, nil)
	none.TTY(false, 1, nil)
	none.Frame(none.NewConn(), proxyproto.Frame{})
	none.RawFrame(0, raw)
	if none.Counts() != nil {
		t.Error("a tap that is none counts")
	}
}

// TestWatch: one who watches gets what passes, whole, until the end, and no more than the bound.
func TestWatch(t *testing.T) {
	tap := new(wiretap.Tap)
	tap.Ctl(false, hyperstart.Ping, nil) // before anybody watches
	w := tap.Watch()
	defer w.Close()
	tap.TTY(true, 7, []byte("hello"))
	got, lost, err := w.Next(t.Context())
	if err != nil || lost != 0 || len(got) != 1 || got[0].Layer != wiretap.TTY || !got[0].ToHost || got[0].Time == 0 ||
		string(got[0].Raw) != string(hyperstart.AppendTTY(nil, 7, []byte("hello"))) {
		t.Fatalf("got %+v, lost %d, %v", got, lost, err)
	}
	const many = 3000
	for range many {
		tap.Ctl(false, hyperstart.Ping, nil)
	}
	got, lost, err = w.Next(t.Context())
	if err != nil || len(got) == 0 || len(got) > 1024 || len(got)+int(lost) != many {
		t.Errorf("%d messages, %d lost, %v", len(got), lost, err)
	}
	for range many {
		tap.TTY(true, 7, make([]byte, 64<<10))
	}
	bytes := 0
	got, lost, err = w.Next(t.Context())
	for _, m := range got {
		bytes += len(m.Raw)
	}
	if err != nil || bytes > 1<<20 || len(got)+int(lost) != many {
		t.Errorf("%d messages of %d bytes, %d lost, %v", len(got), bytes, lost, err)
	}
	w.Close()
	tap.Ctl(false, hyperstart.Ping, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v, %v", got, err)
	}
}

// BenchmarkOff is what a message costs while nobody watches.
func BenchmarkOff(b *testing.B) {
	tap := new(wiretap.Tap)
	payload := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		tap.TTY(true, 7, payload)
	}
}

// messages are one of each layer, with a secret wherever there can be one.
func messages(t *testing.T) []wiretap.Message {
	t.Helper()
	const process = `{"container":"c","process":{"args":["sh","-c","SECRET"],"env":["NAME=SECRET"],"envs":[{"env":"OLD","value":"SECRET"}],"cwd":"/"},` +
		`"annotations":{"a":"SECRET"},"entropy":"SECRET"}`
	frame := func(h proxyproto.Header, payload string) []byte {
		raw, err := proxyproto.AppendFrame(nil, proxyproto.Frame{Header: h, Payload: []byte(payload)})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	all := []wiretap.Message{
		{Layer: wiretap.Ctl, Raw: hyperstart.AppendCtl(nil, hyperstart.Call, hyperstart.AppendCall(nil, 5, hyperstart.ExecCmd, []byte(process)))},
		{Layer: wiretap.Ctl, Raw: hyperstart.AppendCtl(nil, hyperstart.Result, hyperstart.AppendCall(nil, 5, hyperstart.Ack, []byte("SECRET file")))},
		{Layer: wiretap.Ctl, Raw: hyperstart.AppendCtl(nil, hyperstart.WriteFile, []byte("\x00\x00\x00\x02{}SECRET"))},
		{Layer: wiretap.TTY, Raw: hyperstart.AppendTTY(nil, 9, []byte("SECRET"))},
		{Layer: wiretap.TTY, Raw: hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 9, Bytes: 77})},
		{Layer: wiretap.Frame, Conn: 4, Raw: frame(proxyproto.Header{Type: proxyproto.TypeCommand, Opcode: uint8(proxyproto.CmdHyper)}, `{"hyperName":"execcmd","data":`+process+`}`)},
		{Layer: wiretap.Frame, Conn: 4, Raw: frame(proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdout)}, "SECRET")},
		{Layer: wiretap.Frame, Conn: 4, Raw: frame(proxyproto.Header{Type: proxyproto.TypeNotification}, "\x07")},
	}
	const spec = `{"token":"SECRET","tokens":["SECRET"],"spec":{"process":{"commandLine":"SECRET"},"mounts":[{"destination":"/m","options":["password=SECRET"]}]}}`
	all = append(all,
		wiretap.Message{Layer: wiretap.Ctl, Raw: hyperstart.AppendCtl(nil, hyperstart.Call, hyperstart.AppendCall(nil, 6, hyperstart.NewContainer, []byte(spec)))},
		wiretap.Message{Layer: wiretap.Ctl, Raw: hyperstart.AppendCtl(nil, hyperstart.Event, []byte(`{"kind":"log","log":{"activity":"0a","error":"SECRET","text":"SECRET"}}`))},
		wiretap.Message{Layer: wiretap.Frame, Conn: 4, Raw: frame(proxyproto.Header{Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdHyper)}, `{"msg":"SECRET","class":"not_found"}`)})
	return append(all, wiretap.Message{Layer: wiretap.Ctl, Raw: all[0].Raw[:40]}, wiretap.Message{Layer: wiretap.Frame, Raw: all[5].Raw[:40]})
}

// TestRedact leaves out secrets, and what is left can be read.
func TestRedact(t *testing.T) {
	var got []string
	for _, m := range messages(t) {
		m.Raw = wiretap.Redact(m)
		if strings.Contains(string(m.Raw), "SECRET") {
			t.Errorf("it has a secret: %q", m.Raw)
		}
		if m.Raw == nil {
			got = append(got, "left out")
			continue
		}
		d := wiretap.Describe(m)
		got = append(got, strings.TrimSpace(d.Kind+" "+d.ID+" "+d.Text))
	}
	const process = `"annotations":"…","container":"c","entropy":"…","process":{"args":["sh","… (2 more)"],"cwd":"/","env":["NAME=…"],"envs":[{"env":"OLD","value":"…"}]}`
	want := []string{
		"CALL EXECCMD ticket 5 {" + process + "}",
		"RESULT ACK ticket 5",
		"WRITEFILE",
		"data stream 9",
		"credit  stream 9: 77 bytes",
		`command Hyper connection 4 {"data":{` + process + `},"hyperName":"execcmd"}`,
		"stream stdout connection 4",
		`notification ProcessExited connection 4 ?`,
		`CALL NEWCONTAINER ticket 6 {"spec":{"mounts":[{"destination":"/m","options":"…"}],"process":{"commandLine":"…"}},"token":"…","tokens":"…"}`,
		`EVENT  {"kind":"log","log":{"activity":"0a","error":"…","text":"…"}}`,
		`response Hyper connection 4 {"class":"not_found","msg":"…"}`,
		"CALL EXECCMD ticket 5",
		"command Hyper connection 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLarge: of a message that is larger than what is kept there is a line as well.
func TestLarge(t *testing.T) {
	const large = wiretap.MaxRaw + 1000
	tap := new(wiretap.Tap)
	w := tap.Watch()
	defer w.Close()
	secret := []byte(`"` + strings.Repeat("SECRET", large/6) + `"`)
	tap.Ctl(false, hyperstart.Call, hyperstart.AppendCall(nil, 7, hyperstart.NewContainer, secret))
	tap.Ctl(false, hyperstart.WriteFile, secret)
	tap.TTY(true, 9, secret)
	all, _, err := w.Next(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d messages, %v", len(all), err)
	}
	all = append(all, wiretap.Message{Layer: wiretap.Frame, Size: 5, Raw: []byte("short")})
	for i, want := range []string{"CALL NEWCONTAINER ticket 7", "WRITEFILE ", "data stream 9", "unreadable connection 0"} {
		m := all[i]
		m.Raw = wiretap.Redact(m)
		d := wiretap.Describe(m)
		if d.Kind+" "+d.ID != want || d.Text != fmt.Sprintf("not shown: %d bytes", m.Size-len(m.Raw)) || strings.Contains(string(m.Raw), "SECRET") {
			t.Errorf("%s: got %+v of %d bytes", want, d, m.Size)
		}
	}
}

// TestDescribe: whatever a guest sends, a line for a terminal comes out.
func TestDescribe(t *testing.T) {
	all := messages(t)
	for _, m := range all {
		for n := range len(m.Raw) {
			wiretap.Describe(wiretap.Message{Layer: m.Layer, Raw: m.Raw[:n]})
		}
	}
	d := wiretap.Describe(wiretap.Message{Layer: wiretap.TTY, Raw: hyperstart.AppendTTY(nil, 9, []byte("a\x1b[2Jb\nc"))})
	if d.Text != "a?[2Jb | c" {
		t.Errorf("got %q", d.Text)
	}
	if d := wiretap.Describe(all[0]); !strings.Contains(d.Text, "SECRET") {
		t.Errorf("what is not redacted is not whole: %+v", d)
	}
}
