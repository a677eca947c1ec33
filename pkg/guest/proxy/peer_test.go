package proxy

import (
	"encoding/json"
	"net"
	"sync"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// peer is a client that speaks in frames and reads all the time.
type peer struct {
	t    testing.TB
	conn net.Conn
	w    *proxyproto.Writer

	mu     sync.Mutex // guards the fields below
	cond   *sync.Cond // on mu
	frames []proxyproto.Frame
	ended  bool
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn, w: proxyproto.NewWriter(conn)}
	p.cond = sync.NewCond(&p.mu)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return p
}

func (p *peer) read() {
	r := proxyproto.NewReader(p.conn)
	for {
		f, err := r.ReadFrame()
		p.mu.Lock()
		if err != nil {
			p.ended = true
			p.cond.Broadcast()
			p.mu.Unlock()
			return
		}
		f.Payload = append([]byte(nil), f.Payload...)
		p.frames = append(p.frames, f)
		p.cond.Broadcast()
		p.mu.Unlock()
	}
}

// next returns the next frame; ok is false when the server has hung up.
func (p *peer) next() (f proxyproto.Frame, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.frames) == 0 && !p.ended {
		p.cond.Wait()
	}
	if len(p.frames) == 0 {
		return f, false
	}
	f = p.frames[0]
	p.frames = p.frames[1:]
	return f, true
}

// waiting returns how many frames have come that nobody has taken.
func (p *peer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.frames)
}

// send writes a command.
func (p *peer) send(cmd proxyproto.Command, payload any) {
	p.t.Helper()
	if err := p.w.WriteCommand(cmd, payload); err != nil {
		p.t.Errorf("send %s: %v", cmd, err)
	}
}

// stdin writes a stdin frame.
func (p *peer) stdin(data string) {
	p.t.Helper()
	if err := p.w.WriteStream(proxyproto.StreamStdin, []byte(data)); err != nil {
		p.t.Errorf("stdin: %v", err)
	}
}

// ask sends a command and returns the payload of its response; what comes
// before it is dropped. The error's text is that of the response.
func (p *peer) ask(cmd proxyproto.Command, payload any) (answer, failure string) {
	p.t.Helper()
	p.send(cmd, payload)
	return p.response(cmd)
}

// response waits for the response to a command.
func (p *peer) response(cmd proxyproto.Command) (answer, failure string) {
	p.t.Helper()
	for {
		f, ok := p.next()
		switch {
		case !ok:
			return "", "hung up"
		case f.Type != proxyproto.TypeResponse:
			continue
		case f.Command() != cmd:
			p.t.Errorf("%s answered by %s", cmd, f)
			return "", "wrong answer"
		case f.Error:
			var e proxyproto.ErrorResponse
			if err := json.Unmarshal(f.Payload, &e); err != nil {
				p.t.Errorf("%s: %v", f.Payload, err)
			}
			return "", e.Msg
		}
		return string(f.Payload), ""
	}
}

// must is ask for a command that succeeds.
func (p *peer) must(cmd proxyproto.Command, payload any) string {
	p.t.Helper()
	answer, failure := p.ask(cmd, payload)
	if failure != "" {
		p.t.Fatalf("%s: %s", cmd, failure)
	}
	return answer
}

// expect wants the next frame to be this one.
func (p *peer) expect(want string) {
	p.t.Helper()
	if got := p.describeNext(); got != want {
		p.t.Errorf("got %s, want %s", got, want)
	}
}

func (p *peer) describeNext() string {
	f, ok := p.next()
	if !ok {
		return "hung up"
	}
	text := f.Header.String()
	if f.Type == proxyproto.TypeNotification && len(f.Payload) == 1 {
		return text + " " + string(rune('0'+f.Payload[0]/100)) + string(rune('0'+f.Payload[0]/10%10)) + string(rune('0'+f.Payload[0]%10))
	}
	if len(f.Payload) > 0 {
		text += " " + string(f.Payload)
	}
	return text
}

// runtime returns a connection that is attached to the VM.
func runtimePeer(t testing.TB, s *Server) *peer {
	t.Helper()
	p := newPeer(t, dial(s))
	p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
	return p
}

// token asks for a token.
func (p *peer) token() string {
	p.t.Helper()
	answer := p.must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod", NumIOStreams: 1})
	var r proxyproto.AttachVMResponse
	if err := json.Unmarshal([]byte(answer), &r); err != nil || len(r.IO.Tokens) != 1 {
		p.t.Fatalf("%s: %v", answer, err)
	}
	return r.IO.Tokens[0]
}

// shimPeer returns a connection that has claimed the token.
func shimPeer(t testing.TB, s *Server, token string) *peer {
	t.Helper()
	p := newPeer(t, dial(s))
	p.must(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token})
	return p
}

// hyper is the payload of a Hyper command.
func hyper(name, token, data string) proxyproto.Hyper {
	h := proxyproto.Hyper{HyperName: name}
	if token != "" {
		h.Tokens = []string{token}
	}
	if data != "" {
		h.Data = []byte(data)
	}
	return h
}

// newProcess is the data of a newcontainer command.
const newProcess = `{"id":"c","process":{"id":"init","args":["sh"]}}`

// started returns a runtime connection and the shim's connection to a process
// that runs.
func started(t testing.TB, s *Server) (runtime, shim *peer, token string) {
	t.Helper()
	runtime = runtimePeer(t, s)
	token = runtime.token()
	shim = shimPeer(t, s, token)
	runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
	return runtime, shim, token
}

// stuckShim returns a connection that has claimed the token and reads nothing.
func stuckShim(t testing.TB, s *Server, token string) net.Conn {
	t.Helper()
	conn := dial(s)
	t.Cleanup(func() { _ = conn.Close() })
	w := proxyproto.NewWriter(conn)
	if err := w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); err != nil {
		t.Fatal(err)
	}
	f, err := proxyproto.NewReader(conn).ReadFrame()
	if err != nil || f.Error {
		t.Fatalf("%s, %v", f, err)
	}
	return conn
}

// dialer is the dial function of a client.
func dialer(s *Server) func() (net.Conn, error) {
	return func() (net.Conn, error) { return dial(s), nil }
}
