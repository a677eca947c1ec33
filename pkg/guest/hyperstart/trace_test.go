package hyperstart_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/trace"
)

// traces are the recordings, with the dialect of their guest.
var traces = map[string]hyperstart.Dialect{
	"hyperhq":        hyperstart.DialectHyperhq,
	"clear-go":       hyperstart.DialectClearGo,
	"clear-go-proxy": hyperstart.DialectClearGo,
}

// recorded is one message of a trace.
type recorded struct {
	toGuest bool
	tty     bool
	raw     []byte
}

func readTrace(t testing.TB, name string) []recorded {
	t.Helper()
	lines, err := trace.Read(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]recorded, 0, len(lines))
	for _, line := range lines {
		messages = append(messages, recorded{!line.In, line.Channel == trace.TTY, line.Raw})
	}
	if len(messages) < 50 {
		t.Fatalf("only %d messages in %s", len(messages), name)
	}
	return messages
}

// again decodes a recorded message and encodes it.
func again(t *testing.T, m recorded) []byte {
	t.Helper()
	if m.tty {
		seq, payload, err := hyperstart.NewTTYReader(bytes.NewReader(m.raw)).Read()
		if err != nil {
			t.Fatalf("%x: %v", m.raw, err)
		}
		return hyperstart.AppendTTY(nil, seq, payload)
	}
	code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(m.raw)).Read()
	if err != nil {
		t.Fatalf("%x: %v", m.raw, err)
	}
	return hyperstart.AppendCtl(nil, code, payload)
}

// TestTraces decodes every recorded message and encodes it again (M1).
func TestTraces(t *testing.T) {
	for name := range traces {
		t.Run(name, func(t *testing.T) {
			for i, m := range readTrace(t, name) {
				if got := again(t, m); !bytes.Equal(got, m.raw) {
					t.Errorf("message %d encoded again\n got %x\nwant %x", i, got, m.raw)
				}
			}
		})
	}
}

// TestTraceStreams reads each port and direction as one stream, in the
// smallest pieces and in odd ones (M4).
func TestTraceStreams(t *testing.T) {
	type key struct{ toGuest, tty bool }
	for name := range traces {
		streams, counts := make(map[key][]byte), make(map[key]int)
		for _, m := range readTrace(t, name) {
			k := key{m.toGuest, m.tty}
			streams[k] = append(streams[k], m.raw...)
			counts[k]++
		}
		for k, stream := range streams {
			for _, split := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
				n, err := countMessages(split(bytes.NewReader(stream)), k.tty)
				if n != counts[k] || !errors.Is(err, io.EOF) {
					t.Errorf("%s %+v: %d messages, then %v; want %d, then EOF", name, k, n, err, counts[k])
				}
			}
		}
	}
}

func countMessages(r io.Reader, tty bool) (n int, err error) {
	ctlReader, ttyReader := hyperstart.NewCtlReader(r), hyperstart.NewTTYReader(r)
	for ; ; n++ {
		if tty {
			_, _, err = ttyReader.Read()
		} else {
			_, _, err = ctlReader.Read()
		}
		if err != nil {
			return n, err
		}
	}
}

// payloadOf returns a value for the JSON payload of a control message, nil
// where the payload is not JSON.
func payloadOf(d hyperstart.Dialect, code hyperstart.Code) any {
	switch d.CodeName(code) {
	case "STARTPOD":
		return new(hyperstart.StartPodRequest)
	case "EXECCMD":
		return new(hyperstart.ExecCmdRequest)
	case "NEWCONTAINER":
		return new(hyperstart.NewContainerRequest)
	case "KILLCONTAINER":
		return new(hyperstart.KillContainerRequest)
	case "REMOVECONTAINER":
		return new(hyperstart.ContainerRef)
	case "SETUPINTERFACE":
		return new(hyperstart.Interface)
	case "SETUPROUTE":
		return new(hyperstart.Routes)
	case "READFILE":
		return new(hyperstart.FileRequest)
	case "PSCONTAINER":
		return new(psContainerRequest)
	case "PROCESSASYNCEVENT":
		return new(hyperstart.AsyncEvent)
	case "SIGNALPROCESS":
		return new(hyperstart.SignalProcessRequest)
	case "WINSIZE":
		if d.WinSizeBySeq() {
			return new(hyperstart.WinSizeBySeq)
		}
		return new(hyperstart.WinSizeByName)
	}
	return nil
}

// foreignKeys are keys that virtcontainers always sends and that only clear-go
// knows. This project has no use for them.
var foreignKeys = map[string]bool{
	"initialize": true, "restartPolicy": true, "systemMountsInfo": true, "constraints": true,
	"noNewPrivileges": true, "capabilities": true, "volumes": true, "addr": true, "bogus": true,
}

// prune drops foreign keys and everything that says nothing, so that what is
// left must be equal.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			if value = prune(value); value != nil && !foreignKeys[key] {
				out[key] = value
			}
		}
		return out
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = prune(v[i])
		}
	case bool:
		if !v {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	}
	return v
}

func jsonValue(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return prune(v)
}

// TestTracePayloads decodes every recorded JSON payload into our types and
// back: no key that means something may be lost.
func TestTracePayloads(t *testing.T) {
	for name, dialect := range traces {
		seen := make(map[string]int)
		for _, m := range readTrace(t, name) {
			if m.tty {
				continue
			}
			code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(m.raw)).Read()
			if err != nil {
				t.Fatal(err)
			}
			v := payloadOf(dialect, code)
			if v == nil || len(payload) == 0 {
				continue
			}
			seen[dialect.CodeName(code)]++
			if err := json.Unmarshal(payload, v); err != nil {
				t.Errorf("%s: %s: %v", name, dialect.CodeName(code), err)
				continue
			}
			encoded, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(jsonValue(t, payload), jsonValue(t, encoded)); diff != "" {
				t.Errorf("%s: %s (-recorded +ours):\n%s", name, dialect.CodeName(code), diff)
			}
		}
		if len(seen) < 4 {
			t.Errorf("%s: only %v have payloads", name, seen)
		}
	}
}

// TestTraceNext holds the C agent to H3 and H6: one reply per command, and a
// sum of NEXT that is what was sent when the reply comes.
func TestTraceNext(t *testing.T) {
	var sent, consumed, commands, replies int
	for i, m := range readTrace(t, "hyperhq") {
		if m.tty {
			continue
		}
		code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(m.raw)).Read()
		switch {
		case err != nil:
			t.Fatal(err)
		case m.toGuest:
			sent += len(m.raw)
			commands++
		case code == hyperstart.Next:
			consumed += int(binary.BigEndian.Uint32(payload))
			if consumed > sent {
				t.Errorf("message %d: %d bytes consumed of %d", i, consumed, sent)
			}
		case code == hyperstart.Ack || code == hyperstart.Error:
			replies++
			if consumed != sent || replies != commands {
				t.Errorf("message %d: %d bytes of %d consumed, %d replies to %d commands", i, consumed, sent, replies, commands)
			}
		}
	}
}

// TestTraceExits finds the exit statuses of each trace in the way of its
// dialect (S3 to S5).
func TestTraceExits(t *testing.T) {
	want := map[string][]int{
		"hyperhq":        {7, 3, 0, 0, 0, 127, 0, 1},
		"clear-go":       {7, 3, 5, 0, 137, 0, 0},
		"clear-go-proxy": {42, 5, 6, 9},
	}
	for name, dialect := range traces {
		var got []int
		ended := make(map[uint64]bool)
		for _, m := range readTrace(t, name) {
			if m.toGuest {
				continue
			}
			if m.tty {
				seq, payload, err := hyperstart.NewTTYReader(bytes.NewReader(m.raw)).Read()
				if err != nil {
					t.Fatal(err)
				}
				if dialect.ExitOnTTY() && ended[seq] && len(payload) == 1 {
					got = append(got, int(payload[0]))
				} else if ended[seq] && len(payload) > 0 {
					t.Errorf("%s: S3: %d bytes on %d after its end", name, len(payload), seq)
				}
				ended[seq] = ended[seq] || len(payload) == 0
				continue
			}
			code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(m.raw)).Read()
			if err != nil {
				t.Fatal(err)
			}
			if async, ok := dialect.AsyncEvent(); ok && code == async {
				var event hyperstart.AsyncEvent
				if err := json.Unmarshal(payload, &event); err != nil || event.Event != "finished" {
					t.Errorf("%s: %q: %v", name, payload, err)
				}
				got = append(got, event.Status)
			}
		}
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s: exit statuses (-want +got):\n%s", name, diff)
		}
	}
}

// TestTraceHandshake: H1, H2, against what the guests said.
func TestTraceHandshake(t *testing.T) {
	for _, name := range []string{"hyperhq", "clear-go"} {
		messages := readTrace(t, name)
		if want := hyperstart.AppendCtl(nil, hyperstart.Ready, nil); !bytes.Equal(messages[0].raw, want) {
			t.Errorf("%s: first message %x, want READY", name, messages[0].raw)
		}
		for _, m := range messages[1:] {
			code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(m.raw)).Read()
			if err != nil {
				t.Fatal(err)
			}
			if code != hyperstart.Ack && code != hyperstart.Error {
				continue
			}
			var version uint32
			if code == hyperstart.Ack {
				version = binary.BigEndian.Uint32(payload)
			}
			if got, err := hyperstart.DialectOf(version, code == hyperstart.Ack); err != nil || got != traces[name] {
				t.Errorf("%s: dialect %v, %v", name, got, err)
			}
			break // the first reply is that to GETVERSION
		}
	}
}

// psContainerRequest is the payload of PSCONTAINER, which only a recorded host
// sends.
type psContainerRequest struct {
	Container string   `json:"container"`
	Format    string   `json:"format"` // "json" or "table"
	PsArgs    []string `json:"psargs"` // arguments of ps, for "table"
}
