package proxy

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

func TestRegister(t *testing.T) {
	dir := t.TempDir()
	ctlPath, ttyPath := filepath.Join(dir, "c"), filepath.Join(dir, "t")
	ctl, err := net.Listen("unix", ctlPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ctl.Close() }()
	s := NewServer(Options{Dialect: hyperstart.DialectClearGo, URL: "unix:///p"})
	p := newPeer(t, dial(s))
	defer func() { _ = s.Close() }()
	request := proxyproto.RegisterVM{ContainerID: "pod", CtlSerial: ctlPath, IOSerial: ttyPath, NumIOStreams: 2}

	if _, got := p.ask(proxyproto.CmdRegisterVM, nil); got != "unexpected end of JSON input" {
		t.Errorf("without payload: %q", got)
	}
	if _, got := p.ask(proxyproto.CmdRegisterVM, proxyproto.RegisterVM{ContainerID: "pod"}); got != "malformed RegisterVM command" {
		t.Errorf("without sockets: %q", got)
	}
	// The sockets must exist; a VM that cannot be reached is forgotten.
	if _, got := p.ask(proxyproto.CmdRegisterVM, request); got != "dial unix "+ttyPath+": connect: no such file or directory" {
		t.Errorf("without tty socket: %q", got)
	}
	tty, err := net.Listen("unix", ttyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tty.Close() }()
	if lost, err := ctl.Accept(); err == nil { // that of the attempt above
		_ = lost.Close()
	}
	p.send(proxyproto.CmdRegisterVM, request)
	guestCtl, err := ctl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	guestTTY, err := tty.Accept()
	if err != nil {
		t.Fatal(err)
	}
	g := wiretest.New(t, guestCtl, guestTTY)
	g.Run(true)
	defer g.Close()
	answer, failure := p.response(proxyproto.CmdRegisterVM)
	var r proxyproto.RegisterVMResponse
	if err := json.Unmarshal([]byte(answer), &r); err != nil || failure != "" || r.IO.URL != "unix:///p" || len(r.IO.Tokens) != 2 {
		t.Fatalf("answer %s, %s", answer, failure)
	}
	for _, token := range r.IO.Tokens {
		if len(token) != len(proxyproto.NewToken()) {
			t.Errorf("token %q", token)
		}
	}
	if _, got := p.ask(proxyproto.CmdRegisterVM, request); got != "pod: container already registered" {
		t.Errorf("again: %q", got)
	}
	p.must(proxyproto.CmdHyper, hyper("ping", "", "")) // the registering connection is attached
	if dialect, err := s.Dialect("pod"); err != nil || dialect != hyperstart.DialectClearGo {
		t.Errorf("dialect %v, %v", dialect, err)
	}
}

func TestAttachAndUnregister(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectClearGo, Options{URL: "unix:///p"})
	p := newPeer(t, dial(s))
	if _, got := p.ask(proxyproto.CmdHyper, hyper("ping", "", "")); got != "client not attached to a vm" {
		t.Errorf("ping: %q", got)
	}
	if _, got := p.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "nope"}); got != "unknown containerID: nope" {
		t.Errorf("attach: %q", got)
	}
	if got := p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"}); got != `{"io":{"URL":"unix:///p","tokens":null}}` {
		t.Errorf("attach: %s", got)
	}
	token := p.token()
	other := runtimePeer(t, s)
	if _, got := p.ask(proxyproto.CmdUnregisterVM, proxyproto.UnregisterVM{ContainerID: "nope"}); got != "unknown containerID: nope" {
		t.Errorf("unregister: %q", got)
	}
	if got := p.must(proxyproto.CmdUnregisterVM, proxyproto.UnregisterVM{ContainerID: "pod"}); got != "" {
		t.Errorf("unregister: %q", got)
	}
	if _, got := p.ask(proxyproto.CmdHyper, hyper("ping", "", "")); got != "client not attached to a vm" {
		t.Errorf("ping after unregister: %q", got)
	}
	// Only the id is gone; the channels and the sessions live on.
	shimPeer(t, s, token)
	other.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
	if _, got := p.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"}); got != "unknown containerID: pod" {
		t.Errorf("attach after unregister: %q", got)
	}
}

// TestHyperErrors also asks for a command after each refusal: with the
// original proxy some of them wedged the control channel for ever.
func TestHyperErrors(t *testing.T) {
	const tooBig = "payload of"
	tests := []struct {
		name    string
		dialect hyperstart.Dialect
		hyper   proxyproto.Hyper
		want    string
	}{
		{name: "unknown command", hyper: hyper("x", "", ""), want: "unknown command 'x'"},
		{name: "reply as a command", hyper: hyper("ack", "", ""), want: "unknown command 'ack'"},
		{name: "next as a command", hyper: hyper("next", "", ""), want: "unknown command 'next'"},
		{name: "command of another dialect", dialect: hyperstart.DialectClearC, hyper: hyper("pscontainer", "", ""), want: "command 'pscontainer' is not in the guest's dialect clear-c"},
		{name: "token where none belongs", hyper: hyper("ping", "T", ""), want: "ping doesn't need tokens but 1 token(s) were given"},
		{name: "token for an unknown command", hyper: hyper("x", "T", ""), want: "x doesn't need tokens but 1 token(s) were given"},
		{name: "two tokens", hyper: proxyproto.Hyper{HyperName: "execcmd", Tokens: []string{"A", "B"}, Data: []byte(newProcess)}, want: "expected 0 or 1 token, got 2"},
		{name: "unknown token", hyper: hyper("newcontainer", "T", newProcess), want: "unknown token T"},
		{name: "no process", hyper: hyper("newcontainer", "", `{"id":"c"}`), want: "NEWCONTAINER has no process"},
		{name: "null process", hyper: hyper("execcmd", "", `{"container":"c","process":null}`), want: "EXECCMD has no process"},
		{name: "stdio given", hyper: hyper("newcontainer", "", `{"process":{"stdio":5}}`), want: "expected process.Stdio to be 0, got 5"},
		{name: "stderr given", hyper: hyper("newcontainer", "", `{"process":{"stderr":6}}`), want: "expected process.Stderr to be 0, got 6"},
		{name: "process of another type", hyper: hyper("newcontainer", "", `{"process":[]}`), want: "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"},
		{name: "no data", hyper: hyper("newcontainer", "", ""), want: "unexpected end of JSON input"},
		{name: "too large for the guest", hyper: hyper("ping", "", `"`+strings.Repeat("x", hyperstart.MaxCtlPayload)+`"`), want: tooBig},
		{name: "credit without session", hyper: hyper(proxyproto.HyperCredit, "", "{}"), want: "client isn't a shim"},
		{name: "drain of nothing", hyper: hyper(proxyproto.HyperDrainStdin, "", "{}"), want: "expected 1 token, got 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.dialect == hyperstart.DialectUnknown {
				tt.dialect = hyperstart.DialectCCv2
			}
			s, _ := newServer(t, tt.dialect, Options{})
			p := runtimePeer(t, s)
			_, got := p.ask(proxyproto.CmdHyper, tt.hyper)
			if got != tt.want && (tt.want != tooBig || !strings.Contains(got, tooBig)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			p.must(proxyproto.CmdHyper, hyper("ping", "", ""))
			runtimePeer(t, s).must(proxyproto.CmdHyper, hyper("ping", "", ""))
		})
	}
}

// TestHyperPassesData: to the guest and back, byte for byte.
func TestHyperPassesData(t *testing.T) {
	s, g := newServerWith(t, hyperstart.DialectHyperhq, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.ReadFile {
			return hyperstart.Ack, []byte("\x00\xff raw <bytes>")
		}
		return hyperstart.Error, []byte("no such container\x00")
	})
	p := runtimePeer(t, s)
	const data = `{"container":"c","file":"/a<b>&c"}`
	if got := p.must(proxyproto.CmdHyper, hyper("readfile", "", data)); got != "\x00\xff raw <bytes>" {
		t.Errorf("answer %q", got)
	}
	if got := g.WaitCommand(hyperstart.ReadFile, 1); got != data {
		t.Errorf("the guest got %s", got)
	}
	if _, got := p.ask(proxyproto.CmdHyper, hyper("killcontainer", "", `{"container":"c","signal":9}`)); got != "ERROR received from VM agent, control msg received : no such container" {
		t.Errorf("error %q", got)
	}
}

// TestErrorKeepsItsClass: the class and the exit status of a guest's error
// reach the client in this process.
func TestErrorKeepsItsClass(t *testing.T) {
	s, _ := newServerWith(t, hyperstart.DialectCCv2, Options{}, func(hyperstart.Code, []byte) (hyperstart.Code, []byte) {
		return hyperstart.Error, []byte(`{"class":"not_found","message":"no sh","exitStatus":127}`)
	})
	ours, theirs := net.Pipe()
	go func() { _ = s.ServeOwn(theirs) }()
	p := newPeer(t, ours)
	p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
	p.send(proxyproto.CmdHyper, hyper("startcontainer", "", "{}"))
	f, _ := p.next()
	want := &proxyproto.RemoteError{Command: proxyproto.CmdHyper, Msg: "guest: STARTCONTAINER: no sh", Class: "not_found", ExitStatus: 127}
	if diff := cmp.Diff(error(want), f.Err()); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// TestOriginalWords: a client of the socket gets the original's words, byte for byte.
func TestOriginalWords(t *testing.T) {
	for dialect, answer := range map[hyperstart.Dialect]string{
		hyperstart.DialectCCv2:    `{"class":"not_found","message":"Container nope not found","exitStatus":127}`,
		hyperstart.DialectClearGo: "Container nope not found",
	} {
		s, g := newServerWith(t, dialect, Options{}, func(hyperstart.Code, []byte) (hyperstart.Code, []byte) {
			return hyperstart.Error, []byte(answer)
		})
		p := runtimePeer(t, s)
		for _, want := range []string{"ERROR received from VM agent, control msg received : Container nope not found", "No multicast available for CTL channel"} {
			p.send(proxyproto.CmdHyper, hyper("killcontainer", "", `{"container":"nope","signal":15}`))
			if f, ok := p.next(); !ok || !f.Error || string(f.Payload) != `{"msg":"`+want+`"}` {
				t.Errorf("%s: %s %s, want %q", dialect, f, f.Payload, want)
			}
			g.Close() // the second answer is that of a lost VM
			<-pod(t, s).conn.Done()
		}
	}
}

func TestRelocation(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectClearGo, Options{})
	p := runtimePeer(t, s)
	tests := []struct{ name, command, data, want string }{
		{"newcontainer", "newcontainer", `{"id":"c","future":{"a":1},"process":{"args":["<&>"],"stdio":0}}`, `{"future":{"a":1},"id":"c","process":{"args":["<&>"],"stderr":4,"stdio":3}}`},
		{"terminal", "newcontainer", `{"id":"d","process":{"terminal":true,"stderr":0}}`, `{"id":"d","process":{"stdio":5,"terminal":true}}`},
		{"execcmd", "execcmd", `{"container":"c","process":{"id":"e"}}`, `{"container":"c","process":{"id":"e","stderr":8,"stdio":7}}`},
		// A session without a token has numbers of its own: the original's
		// fixed 1 and 2 worked only once per VM.
		{"null session", "execcmd", `{"container":"c","process":{"id":"f"}}`, `{"container":"c","process":{"id":"f","stderr":10,"stdio":9}}`},
	}
	seen := map[hyperstart.Code]int{}
	for _, tt := range tests {
		token := ""
		if tt.name != "null session" {
			token = p.token()
			shimPeer(t, s, token)
		}
		p.must(proxyproto.CmdHyper, hyper(tt.command, token, tt.data))
		code, _ := hyperstart.DialectClearGo.CodeOf(tt.command)
		seen[code]++
		if got := g.WaitCommand(code, seen[code]); got != tt.want {
			t.Errorf("%s: guest got\n%s, want\n%s", tt.name, got, tt.want)
		}
	}
}

func TestTokenRules(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectClearGo, Options{})
	runtime, shim, token := started(t, s)
	if _, got := newPeer(t, dial(s)).ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); got != "token already claimed: "+token {
		t.Errorf("second claim: %q", got)
	}
	if _, got := shim.ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); got != "client is a shim already" {
		t.Errorf("claim by the same client: %q", got)
	}
	if _, got := runtime.ask(proxyproto.CmdHyper, hyper("execcmd", token, newProcess)); got != "token "+token+" has a process already" {
		t.Errorf("second process: %q", got)
	}
	if _, got := runtime.ask(proxyproto.CmdDisconnectShim, nil); got != "client isn't a shim" {
		t.Errorf("disconnect by a runtime: %q", got)
	}
	if _, got := runtime.ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: "AAAA"}); got != "unknown token: AAAA" {
		t.Errorf("unknown token: %q", got)
	}
	shim.send(proxyproto.CmdDisconnectShim, nil)
	shim.expect("hung up") // no response
	if _, got := newPeer(t, dial(s)).ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); got != "token already claimed: "+token {
		t.Errorf("claim after disconnect: %q", got)
	}
	if _, got := runtime.ask(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess)); got != "unknown token "+token {
		t.Errorf("process after disconnect: %q", got)
	}
}

func TestNobodyClaimsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		p := runtimePeer(t, s)
		token := p.token()
		begin := time.Now()
		if _, got := p.ask(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess)); got != "timeout waiting for shim with token "+token {
			t.Errorf("error %q", got)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("after %s, want 30 s", took)
		}
		// The guest was not asked, and the token can still be used.
		shimPeer(t, s, token)
		p.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		if n := len(g.Commands); n != 1 {
			t.Errorf("the guest got %d commands, want 1", n)
		}
	})
}

// TestClientsThatAreCutOff: what ends a connection, without a response.
func TestClientsThatAreCutOff(t *testing.T) {
	var entries []proxyproto.LogEntry
	s, _ := newServer(t, hyperstart.DialectClearGo, Options{Log: func(e proxyproto.LogEntry) { entries = append(entries, e) }})
	stream := func(s proxyproto.Stream, payload string) proxyproto.Frame {
		return proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(s)}, Payload: []byte(payload)}
	}
	for name, f := range map[string]proxyproto.Frame{
		"response":          {Header: proxyproto.Header{Type: proxyproto.TypeResponse}},
		"notification":      {Header: proxyproto.Header{Type: proxyproto.TypeNotification}, Payload: []byte{0}},
		"stdout":            stream(proxyproto.StreamStdout, "x"),
		"stderr":            stream(proxyproto.StreamStderr, "x"),
		"stdin of no shim":  stream(proxyproto.StreamStdin, "x"),
		"log of nobody":     stream(proxyproto.StreamLog, `{"source":"bogus","level":"info","msg":"x"}`),
		"log of no level":   stream(proxyproto.StreamLog, `{"source":"shim","msg":"x"}`),
		"log of nothing":    stream(proxyproto.StreamLog, `{"source":"shim","level":"info","msg":""}`),
		"log that is not":   stream(proxyproto.StreamLog, `x`),
		"log without bytes": stream(proxyproto.StreamLog, ``),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, dial(s))
			if err := p.w.WriteFrame(f); err != nil {
				t.Fatal(err)
			}
			p.expect("hung up")
		})
	}
	p := newPeer(t, dial(s))
	want := proxyproto.LogEntry{Source: proxyproto.SourceShim, Level: proxyproto.LevelWarn, Msg: "hello", ContainerID: "c"}
	payload, err := proxyproto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.w.WriteStream(proxyproto.StreamLog, payload); err != nil {
		t.Fatal(err)
	}
	p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"}) // not answered, not cut off
	if diff := cmp.Diff([]proxyproto.LogEntry{want}, entries); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
