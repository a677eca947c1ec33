package proxy

import (
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/trace"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// replay plays a recorded session of the original stack: the clients and the
// guest say what they said then, and the proxy must say what cc-proxy said.
//
// What may differ, and why:
//   - Tokens are random; the recorded ones stand for ours. They have the same
//     length, so all else is compared byte for byte.
//   - The sockets of the VM have other paths; cc-proxy does not repeat them.
//   - NEWCONTAINER and EXECCMD go to the guest with the keys that the client
//     gave and in another order: cc-proxy decodes them into its own structs,
//     which drops what it does not know and adds what C agents refuse. They
//     are compared as JSON, without what is empty.
//   - The dialect is given, since cc-proxy never asks the guest for its version.
type replay struct {
	t       *testing.T
	server  *Server
	dir     string
	clients map[string]*recordedClient
	tokens  *strings.Replacer // recorded to ours
	pairs   []string
	ctl     net.Conn
	tty     net.Conn
	sockets []*net.UnixListener
}

type recordedClient struct {
	conn net.Conn
	r    *proxyproto.Reader
}

// recordedURL is what cc-proxy called itself.
const recordedURL = "unix:///run/cc/vm/0/run-cc-agent-3429/p.sock"

func TestReplay(t *testing.T) {
	lines, err := trace.Read("../../proxyproto/testdata/session.hex", "../hyperstart/testdata/clear-go-proxy.hex")
	if err != nil {
		t.Fatal(err)
	}
	r := newReplay(t)
	counts := make(map[bool]int)
	for i, line := range lines {
		counts[line.Channel == trace.Ctl || line.Channel == trace.TTY]++
		r.play(line)
		if t.Failed() {
			t.Fatalf("in message %d, at %.6f s", i, line.At)
		}
	}
	if counts[true] < 60 || counts[false] < 100 {
		t.Errorf("only %d messages of the guest and %d frames", counts[true], counts[false])
	}
	// These the proxy ended: DisconnectShim, and what no client may send.
	for _, name := range []string{"c3", "c6", "c7", "c8", "c9", "c10", "c11", "c12"} {
		if f, err := r.clients[name].r.ReadFrame(); !isEOF(err) {
			t.Errorf("%s: got %s, %v; want the end", name, f, err)
		}
	}
	for _, name := range []string{"c1", "c2", "c4", "c5", "c13", "c14"} {
		_ = r.clients[name].conn.SetReadDeadline(time.Unix(1, 0))
		if _, err := r.clients[name].r.ReadFrame(); isEOF(err) {
			t.Errorf("%s was ended", name)
		}
	}
}

func newReplay(t *testing.T) *replay {
	t.Helper()
	dir := t.TempDir()
	r := &replay{
		t: t, dir: dir, clients: make(map[string]*recordedClient), tokens: strings.NewReplacer(),
		server: NewServer(Options{URL: recordedURL, Dialect: hyperstart.DialectClearGo}),
	}
	t.Cleanup(func() {
		for _, c := range r.clients {
			_ = c.conn.Close()
		}
		_ = r.server.Close()
		_, _ = r.ctl.Close(), r.tty.Close()
	})
	for _, name := range []string{"ctl", "tty"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		r.sockets = append(r.sockets, l)
	}
	return r
}

// deadline is when a replay that hangs gives up.
func deadline() time.Time { return time.Now().Add(20 * time.Second) }

func (r *replay) play(line trace.Line) {
	r.t.Helper()
	switch {
	case line.Channel == trace.Ctl || line.Channel == trace.TTY:
		r.acceptGuest()
		port := r.ctl
		if line.Channel == trace.TTY {
			port = r.tty
		}
		if line.In {
			if _, err := port.Write(line.Raw); err != nil {
				r.t.Fatal(err)
			}
			return
		}
		r.guestReads(port, line)
	case line.In:
		r.clientReads(r.clients[line.Channel], line.Raw)
	default:
		r.clientWrites(r.client(line.Channel), line.Raw)
	}
}

// acceptGuest takes the two connections of RegisterVM.
func (r *replay) acceptGuest() {
	r.t.Helper()
	if r.tty != nil {
		return
	}
	for i, port := range []*net.Conn{&r.ctl, &r.tty} {
		_ = r.sockets[i].SetDeadline(deadline())
		conn, err := r.sockets[i].Accept()
		if err != nil {
			r.t.Fatal(err)
		}
		_ = conn.SetDeadline(deadline())
		*port = conn
	}
}

func (r *replay) client(name string) *recordedClient {
	r.t.Helper()
	if c := r.clients[name]; c != nil {
		return c
	}
	ours, theirs := socketPair(r.t)
	go func() { _ = r.server.Serve(theirs) }()
	_ = ours.SetDeadline(deadline())
	c := &recordedClient{conn: ours, r: proxyproto.NewReader(ours)}
	r.clients[name] = c
	return c
}

func (r *replay) clientWrites(c *recordedClient, raw []byte) {
	r.t.Helper()
	s := r.tokens.Replace(string(raw))
	if raw[7] == byte(proxyproto.CmdRegisterVM) && raw[6] == byte(proxyproto.TypeCommand) {
		payload, err := json.Marshal(proxyproto.RegisterVM{
			ContainerID: "pod1",
			CtlSerial:   filepath.Join(r.dir, "ctl"), IOSerial: filepath.Join(r.dir, "tty"),
		})
		if err != nil {
			r.t.Fatal(err)
		}
		var b bytes.Buffer
		if err := proxyproto.NewWriter(&b).WriteCommand(proxyproto.CmdRegisterVM, payload); err != nil {
			r.t.Fatal(err)
		}
		s = b.String()
	}
	if _, err := c.conn.Write([]byte(s)); err != nil {
		r.t.Fatal(err)
	}
	if raw[7] == byte(proxyproto.CmdDisconnectShim) && raw[6] == byte(proxyproto.TypeCommand) {
		// No response, but the end of the connection, which the recorded
		// clients waited for too.
		if f, err := c.r.ReadFrame(); !isEOF(err) {
			r.t.Errorf("DisconnectShim: got %s, %v; want the end", f, err)
		}
	}
}

func (r *replay) clientReads(c *recordedClient, want []byte) {
	r.t.Helper()
	f, err := c.r.ReadFrame()
	if err != nil {
		r.t.Fatalf("want frame %x: %v", want, err)
	}
	got, err := proxyproto.AppendFrame(nil, f)
	if err != nil {
		r.t.Fatal(err)
	}
	recorded := tokensOf(want)
	for i, token := range tokensOf(got) {
		if i < len(recorded) && !strings.Contains(strings.Join(r.pairs, " "), token) {
			r.pairs = append(r.pairs, recorded[i], token)
			r.tokens = strings.NewReplacer(r.pairs...)
		}
	}
	if want := r.tokens.Replace(string(want)); string(got) != want {
		r.t.Errorf("frame differs\n got %q\nwant %q", got, want)
	}
}

// tokensOf finds the tokens that a response hands out.
func tokensOf(frame []byte) []string {
	var r proxyproto.AttachVMResponse
	if json.Unmarshal(frame[proxyproto.HeaderLen:], &r) != nil {
		return nil
	}
	return r.IO.Tokens
}

func (r *replay) guestReads(port net.Conn, line trace.Line) {
	r.t.Helper()
	if line.Channel == trace.TTY {
		seq, payload, err := hyperstart.NewTTYReader(port).Read()
		if got := hyperstart.AppendTTY(nil, seq, payload); err != nil || !bytes.Equal(got, line.Raw) {
			r.t.Errorf("tty message %x, %v; recorded %x", got, err, line.Raw)
		}
		return
	}
	code, payload, err := hyperstart.NewCtlReader(port).Read()
	if err != nil {
		r.t.Fatal(err)
	}
	if code == hyperstart.NewContainer || code == hyperstart.ExecCmd {
		_, want, err := line.ParseCtl()
		if err != nil {
			r.t.Fatal(err)
		}
		if diff := cmp.Diff(nonEmpty(r.t, want), nonEmpty(r.t, payload)); diff != "" {
			r.t.Errorf("%s (-recorded +ours):\n%s", code, diff)
		}
		return
	}
	if got := hyperstart.AppendCtl(nil, code, payload); !bytes.Equal(got, line.Raw) {
		r.t.Errorf("control message %q, recorded %q", got, line.Raw)
	}
}

// nonEmpty decodes JSON and drops what says nothing.
func nonEmpty(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return prune(v)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if v[key] = prune(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = prune(v[i])
		}
	case bool, string, float64:
		if v == false || v == "" || v == 0.0 {
			return nil
		}
	}
	return v
}
