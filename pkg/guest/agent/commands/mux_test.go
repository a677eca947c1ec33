package commands

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// message is one control message as a test sees it.
type message struct {
	Code    hyperstart.Code
	Payload string
}

// serveMux runs a mux on one end of a pipe and returns the other end and a
// reader of its answers.
func serveMux(t *testing.T, handlers map[hyperstart.Code]Handler, final func()) (net.Conn, func() message) {
	t.Helper()
	host, next := serveMuxFor(t, handlers, final, nil)
	return host, next
}

// serveMuxFor is serveMux with what is called for a host that knows no CALL.
func serveMuxFor(t *testing.T, handlers map[hyperstart.Code]Handler, final, original func()) (net.Conn, func() message) {
	t.Helper()
	host, guest := net.Pipe()
	m := New(&Writer{w: guest}, handlers, final)
	m.Original = original
	done := make(chan error, 1)
	go func() { done <- m.Serve(t.Context(), guest) }()
	t.Cleanup(func() {
		host.Close()
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Errorf("serve: %v", err)
		}
	})
	r := hyperstart.NewCtlReader(bufio.NewReader(host))
	return host, func() message {
		t.Helper()
		code, payload, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		return message{code, string(payload)}
	}
}

// TestMuxOriginalHost: a host that asks for its pod without a CALL gets errors as text.
func TestMuxOriginalHost(t *testing.T) {
	refuse := func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no such container") }
	var originals atomic.Int32
	host, next := serveMuxFor(t, map[hyperstart.Code]Handler{
		hyperstart.StartPod: Action(func(context.Context) error { return nil }), hyperstart.KillContainer: refuse,
	}, nil, func() { originals.Add(1) })
	send(t, host, hyperstart.Call, callPayload(1, hyperstart.StartPod, ""))
	next()
	next()
	send(t, host, hyperstart.KillContainer, "")
	if m := next(); errorText(t, m).Message != "no such container" || originals.Load() != 0 {
		t.Errorf("a host with CALL gets %v, and is taken for an original one %d times", m, originals.Load())
	}
	send(t, host, hyperstart.StartPod, "")
	next()
	send(t, host, hyperstart.KillContainer, "")
	if m := next(); m.Code != hyperstart.Error || m.Payload != "no such container" || originals.Load() != 1 {
		t.Errorf("an original host gets %v, told %d times", m, originals.Load())
	}
}

func send(t *testing.T, w io.Writer, code hyperstart.Code, payload string) {
	t.Helper()
	if _, err := w.Write(hyperstart.AppendCtl(nil, code, []byte(payload))); err != nil {
		t.Fatal(err)
	}
}

func callPayload(ticket uint32, code hyperstart.Code, payload string) string {
	return string(hyperstart.AppendCall(nil, ticket, code, []byte(payload)))
}

func errorText(t *testing.T, m message) hyperstart.ErrorReply {
	t.Helper()
	var reply hyperstart.ErrorReply
	if err := json.Unmarshal([]byte(m.Payload), &reply); err != nil {
		t.Fatalf("%s %q: %v", m.Code, m.Payload, err)
	}
	return reply
}

func TestMuxAnswersInOrder(t *testing.T) {
	host, next := serveMux(t, map[hyperstart.Code]Handler{
		hyperstart.Ping: func(_ context.Context, b []byte) ([]byte, error) { return append([]byte("re: "), b...), nil },
		hyperstart.StartPod: func(context.Context, []byte) ([]byte, error) {
			return nil, hyperstart.Errorf("some_class", "no: %d", 7)
		},
		hyperstart.ReadFile: func(context.Context, []byte) ([]byte, error) { return make([]byte, MaxAnswer+1), nil },
	}, nil)
	send(t, host, hyperstart.Ping, "a")
	if got, want := next(), (message{hyperstart.Ack, "re: a"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, tt := range []struct {
		code hyperstart.Code
		want hyperstart.ErrorReply
	}{
		{hyperstart.StartPod, hyperstart.ErrorReply{Class: "some_class", Message: "no: 7"}},
		{hyperstart.GetPod, hyperstart.ErrorReply{Class: hyperstart.ClassNotImplemented, Message: "GETPOD is not a command of this guest"}},
		{hyperstart.Code(999), hyperstart.ErrorReply{Class: hyperstart.ClassNotImplemented, Message: "CODE(999) is not a command of this guest"}},
	} {
		send(t, host, tt.code, "")
		m := next()
		if m.Code != hyperstart.Error {
			t.Fatalf("%s: got %s", tt.code, m.Code)
		}
		if diff := cmp.Diff(tt.want, errorText(t, m)); diff != "" {
			t.Errorf("%s: %s", tt.code, diff)
		}
	}
	send(t, host, hyperstart.ReadFile, "")
	if m := next(); m.Code != hyperstart.Error || errorText(t, m).Class != hyperstart.ClassResourceExhausted {
		t.Errorf("answer that is too long: got %s", m.Code)
	}
}

func TestMuxCallsRunBeside(t *testing.T) {
	release := make(chan struct{})
	host, next := serveMux(t, map[hyperstart.Code]Handler{
		hyperstart.Ping: func(context.Context, []byte) ([]byte, error) { return nil, nil },
		hyperstart.NewContainer: func(_ context.Context, b []byte) ([]byte, error) {
			<-release
			return b, nil // still what the CALL carried, though more was read since
		},
	}, nil)
	for ticket := range uint32(maxCalls) {
		send(t, host, hyperstart.Call, callPayload(ticket, hyperstart.NewContainer, strings.Repeat("x", int(ticket))))
		if m := next(); m != (message{Code: hyperstart.Ack}) {
			t.Fatalf("call %d: got %v", ticket, m)
		}
	}
	send(t, host, hyperstart.Ping, "")
	if m := next(); m.Code != hyperstart.Ack {
		t.Errorf("ping beside calls: got %v", m)
	}
	send(t, host, hyperstart.Call, callPayload(1000, hyperstart.NewContainer, ""))
	if m := next(); m.Code != hyperstart.Ack {
		t.Errorf("call above the limit: got %v", m)
	}
	ticket, code, payload, err := hyperstart.ParseCall([]byte(next().Payload))
	if err != nil || ticket != 1000 || code != hyperstart.Error || !bytes.Contains(payload, []byte(hyperstart.ClassResourceExhausted)) {
		t.Errorf("call above the limit: got %d %s %q %v", ticket, code, payload, err)
	}
	close(release)
	seen := map[uint32]bool{}
	for range maxCalls {
		m := next()
		ticket, code, payload, err := hyperstart.ParseCall([]byte(m.Payload))
		if m.Code != hyperstart.Result || err != nil || code != hyperstart.Ack || len(payload) != int(ticket) || seen[ticket] {
			t.Errorf("got %s %d %s with %d bytes, %v", m.Code, ticket, code, len(payload), err)
		}
		seen[ticket] = true
	}
}

func TestMuxMalformedCall(t *testing.T) {
	host, next := serveMux(t, nil, nil)
	send(t, host, hyperstart.Call, "1234567")
	if m := next(); m.Code != hyperstart.Error || errorText(t, m).Class != hyperstart.ClassInvalidArgument {
		t.Errorf("got %v", m)
	}
}

func TestMuxFinalFollowsTheReply(t *testing.T) {
	final := make(chan struct{})
	host, next := serveMux(t, map[hyperstart.Code]Handler{
		hyperstart.DestroyPod: func(context.Context, []byte) ([]byte, error) { return nil, nil },
	}, func() { close(final) })
	send(t, host, hyperstart.DestroyPod, "")
	// The pipe has no buffer: the reply is written when it is read here.
	select {
	case <-final:
		t.Error("final before the reply")
	default:
	}
	next()
	<-final
}

// TestMuxActivity: a command that has an activity is logged to the host when it has failed, or the host wants to know in any
// case, before its result; one without is not, for its host does not know the event.
func TestMuxActivity(t *testing.T) {
	refuse := func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no such container") }
	host, next := serveMux(t, map[hyperstart.Code]Handler{
		hyperstart.ExecCmd: Action(func(context.Context) error { return nil }), hyperstart.KillContainer: refuse,
	}, nil)
	run := func(code hyperstart.Code, id string, verbose bool) (logged hyperstart.LogMessage, status hyperstart.Code) {
		t.Helper()
		payload := string(hyperstart.AppendActivity(nil, []byte("{}"), id, verbose))
		send(t, host, hyperstart.Call, callPayload(1, code, payload))
		if m := next(); m.Code != hyperstart.Ack {
			t.Fatalf("got %v", m)
		}
		m := next()
		if m.Code == hyperstart.Event {
			var e hyperstart.EventMessage
			if err := json.Unmarshal([]byte(m.Payload), &e); err != nil || e.Kind != hyperstart.EventLog {
				t.Fatalf("got %v, %v", m, err)
			}
			logged, m = *e.Log, next()
		}
		_, status, _, err := hyperstart.ParseCall([]byte(m.Payload))
		if err != nil || m.Code != hyperstart.Result {
			t.Fatalf("got %v, %v", m, err)
		}
		return logged, status
	}
	for _, tt := range []struct {
		code    hyperstart.Code
		id      string
		verbose bool
		want    hyperstart.LogMessage
	}{
		{hyperstart.KillContainer, "", false, hyperstart.LogMessage{}},
		{hyperstart.ExecCmd, "0a", false, hyperstart.LogMessage{}},
		{hyperstart.ExecCmd, "0b", true, hyperstart.LogMessage{Activity: "0b", Command: "EXECCMD"}},
		{hyperstart.KillContainer, "0c", false, hyperstart.LogMessage{Activity: "0c", Command: "KILLCONTAINER", Error: "no such container"}},
	} {
		got, status := run(tt.code, tt.id, tt.verbose)
		if got.Activity != "" && got.Took <= 0 {
			t.Errorf("%v: it took %v", tt.code, got.Took)
		}
		got.Took = 0
		if got != tt.want || (status == hyperstart.Error) != (tt.code == hyperstart.KillContainer) {
			t.Errorf("%v %q: %+v, status %v, want %+v", tt.code, tt.id, got, status, tt.want)
		}
	}
	go console.Logf("some trouble") // the pipe has no room for it
	var e hyperstart.EventMessage
	if m := next(); json.Unmarshal([]byte(m.Payload), &e) != nil || e.Log == nil || e.Log.Text != "some trouble" {
		t.Errorf("got %v", m)
	}
}
