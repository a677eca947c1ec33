package proxyv1_test

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxyv1"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hang is a time after which a test has failed.
const hang = time.Minute

// start returns the socket of a proxy with one VM, "pod", and its guest.
func start(t testing.TB, dialect hyperstart.Dialect, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (socket string, g *wiretest.Guest) {
	t.Helper()
	socket, _, g = startServer(t, dialect, reply)
	return socket, g
}

func startServer(t testing.TB, dialect hyperstart.Dialect, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (socket string, server *proxy.Server, g *wiretest.Guest) {
	t.Helper()
	return startServerWith(t, proxyv1.New(), dialect, reply)
}

func startServerWith(t testing.TB, version1 proxy.Version1, dialect hyperstart.Dialect, reply func(hyperstart.Code, []byte) (hyperstart.Code, []byte)) (socket string, server *proxy.Server, g *wiretest.Guest) {
	t.Helper()
	ctl, guestCtl := pair(t)
	tty, guestTTY := pair(t)
	g = wiretest.New(t, guestCtl, guestTTY)
	g.Reply = reply
	g.Run(true)
	server = proxy.NewServer(proxy.Options{Dialect: dialect, Version1: version1})
	if err := server.RegisterConn(t.Context(), "pod", ctl, tty, nil, nil); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "proxy.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- server.Listen(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		g.Close()
	})
	return socket, server, g
}

var dialects = []hyperstart.Dialect{hyperstart.DialectCCv2, hyperstart.DialectClearC, hyperstart.DialectClearGo}

// TestProcess is what the runtime and the shim of Clear Containers 2.1 do with a process.
func TestProcess(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.String(), func(t *testing.T) {
			socket, g := start(t, dialect, nil)
			runtime := attached(t, socket)
			for n, process := range []struct{ command, data, code string }{
				{"newcontainer", `{"id":"c","rootfs":"r","process":{"args":["sh"],"stdio":%d,"stderr":%d}}`, "NEWCONTAINER"},
				{"execcmd", `{"container":"c","process":{"args":["ls"],"stdio":%d,"stderr":%d}}`, "EXECCMD"},
			} {
				base, streams := runtime.allocate(2)
				if base != uint64(1+2*n) {
					t.Errorf("numbers from %d on", base)
				}
				data := strings.Replace(strings.Replace(process.data, "%d", string(rune('0'+base)), 1), "%d", string(rune('0'+base+1)), 1)
				if got := runtime.must(v1.MethodHyper, hyper(process.command, data)); got != "" {
					t.Errorf("%s answers %s", process.command, got)
				}
				guestSeq := uint64(wiretest.FirstSeq + 2*n)
				code, _ := dialect.CodeOf(process.command)
				started := g.WaitCommand(code, 1)
				var sent struct {
					Process struct{ Stdio, Stderr uint64 }
				}
				if err := json.Unmarshal([]byte(started), &sent); err != nil || sent.Process.Stdio != guestSeq || sent.Process.Stderr != guestSeq+1 {
					t.Errorf("the guest gets %s, %v", started, err)
				}
				r := hyperstart.NewTTYReader(streams)
				g.Output(guestSeq, "out")
				want(t, r, base, "out")
				g.Output(guestSeq+1, "err")
				want(t, r, base+1, "err")
				for _, text := range []string{"in", ""} {
					if _, err := streams.Write(hyperstart.AppendTTY(nil, base, []byte(text))); err != nil {
						t.Fatal(err)
					}
				}
				g.WaitFor(func() bool {
					in := g.Stdin[guestSeq]
					return len(in) == 2 && string(in[0]) == "in" && len(in[1]) == 0
				})
				g.Exit(guestSeq, 42)
				wantExit(t, r, base, 42)
			}
			shim := attached(t, socket) // has the numbers from its parent
			shim.must(v1.MethodHyper, hyper("killcontainer", `{"container":"c","signal":15}`))
			g.WaitCommand(hyperstart.KillContainer, 1)
			shim.must(v1.MethodHyper, hyper("ping", ""))
		})
	}
}

// TestOneStream: with one stream stderr goes with stdout.
func TestOneStream(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	base, streams := c.allocate(1)
	next, _ := c.allocate(1)
	if base != 1 || next != 2 {
		t.Errorf("numbers %d and %d", base, next)
	}
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"terminal":false,"stdio":1}}`))
	r := hyperstart.NewTTYReader(streams)
	g.Output(wiretest.FirstSeq, "out")
	want(t, r, 1, "out")
	g.Output(wiretest.FirstSeq+1, "err")
	want(t, r, 1, "err")
}

// TestLongOutput: the original shim takes messages of 10240 bytes at most.
func TestLongOutput(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	_, streams := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	text := strings.Repeat("0123456789", 5000)
	g.Output(wiretest.FirstSeq, text)
	r, got := hyperstart.NewTTYReader(streams), ""
	for len(got) < len(text) {
		_, payload, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(payload)+hyperstart.TTYHeaderLen > 10240 {
			t.Errorf("a message of %d bytes", len(payload)+hyperstart.TTYHeaderLen)
		}
		got += string(payload)
	}
	if got != text {
		t.Error("the output is another one")
	}
}

// TestWinSize: the shim names the terminal by its number.
func TestWinSize(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.String(), func(t *testing.T) {
			socket, g := start(t, dialect, nil)
			c := attached(t, socket)
			base, _ := c.allocate(1)
			c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"terminal":true,"stdio":1}}`))
			shim := attached(t, socket)
			shim.must(v1.MethodHyper, hyper("winsize", `{"seq":1,"row":24,"column":80}`))
			if got := g.WaitCommand(hyperstart.WinSize, 1); dialect.WinSizeBySeq() && !strings.Contains(got, `"seq":3`) || !strings.Contains(got, `"row":24`) || !strings.Contains(got, `"column":80`) {
				t.Errorf("the guest gets %s", got)
			}
			if r := shim.ask(v1.MethodHyper, hyper("winsize", `{"seq":9,"row":24,"column":80}`)); r.Success {
				t.Errorf("a size for a number that nobody has, beside %d", base)
			}
		})
	}
}

// TestProcessID: some guests do not survive a process without an id, which clients of version 1 do
// not give; others do not know the key.
func TestProcessID(t *testing.T) {
	for dialect, id := range map[hyperstart.Dialect]string{hyperstart.DialectHyperhq: "1", hyperstart.DialectCCv2: "1", hyperstart.DialectClearC: ""} {
		socket, g := start(t, dialect, nil)
		c := attached(t, socket)
		_, _ = c.allocate(2)
		c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
		var sent struct{ Process struct{ ID string } }
		if err := json.Unmarshal([]byte(g.WaitCommand(hyperstart.NewContainer, 1)), &sent); err != nil || sent.Process.ID != id {
			t.Errorf("%s: id %q, %v, want %q", dialect, sent.Process.ID, err, id)
		}
	}
}

// TestRefused: what the proxy cannot do is an error in its words, and the connection goes on.
func TestRefused(t *testing.T) {
	socket, _ := start(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.KillContainer {
			return hyperstart.Error, hyperstart.EncodeError(errors.New("no such container"))
		}
		return hyperstart.Ack, nil
	})
	c := dial(t, socket)
	for _, tt := range []struct {
		method v1.Method
		data   any
		want   string
	}{
		{"", nil, "no 'id' field in request"},
		{"x", nil, "no payload named 'x'"},
		{v1.MethodAttach, v1.Attach{ContainerID: "none"}, "unknown containerID: none"},
		{v1.MethodAttach, nil, "unexpected end of JSON input"},
		{v1.MethodHello, v1.Hello{ContainerID: "pod", CtlSerial: "/c", IOSerial: "/t"}, "pod: container already registered"},
		{v1.MethodHello, v1.Hello{ContainerID: "new", CtlSerial: "/none", IOSerial: "/none"}, "dial unix /none: connect: no such file or directory"},
		{v1.MethodHello, v1.Hello{ContainerID: "new"}, "malformed hello command"},
		{v1.MethodBye, v1.Bye{ContainerID: "none"}, "unknown containerID: none"},
		{v1.MethodAllocateIO, v1.AllocateIO{NStreams: 1}, "client not attached to a vm"},
		{v1.MethodHyper, hyper("ping", ""), "client not attached to a vm"},
		{v1.MethodAttach, v1.Attach{ContainerID: "pod"}, ""},
		{v1.MethodAllocateIO, v1.AllocateIO{NStreams: 3}, "asking for unexpected number of streams (3)"},
		{v1.MethodHyper, hyper("none", ""), "unknown command 'none'"},
		{v1.MethodHyper, hyper("newcontainer", `{"id":"c"}`), "newcontainer has no process"},
		{v1.MethodHyper, hyper("newcontainer", `{"process":{"stdio":7}}`), "no stream was allocated with sequence number 7, or its descriptor was closed"},
		{v1.MethodHyper, hyper("startpod", `{"containers":[{"id":"c"}]}`), "startpod with containers is not served: start the pod without, and create them with newcontainer"},
		{v1.MethodHyper, hyper("startpod", `{"hostname":"h","containers":[],"shareDir":"rootfs"}`), ""},
		{v1.MethodHyper, hyper("killcontainer", `{"container":"x","signal":9}`), "ERROR received from VM agent, control msg received : no such container"},
		{v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"args":["sh"]}}`), ""},
	} {
		if r := c.ask(tt.method, tt.data); r.Success != (tt.want == "") || r.Error != tt.want {
			t.Errorf("%s %v: %t, %q; want %q", tt.method, tt.data, r.Success, r.Error, tt.want)
		}
	}
	_, _ = c.allocate(2)
	if r := c.ask(v1.MethodHyper, hyper("newcontainer", `{"process":{"stdio":1,"stderr":3}}`)); !strings.Contains(r.Error, "sequence number 3") {
		t.Errorf("stderr of somebody else: %+v", r)
	}
	c.must(v1.MethodBye, v1.Bye{ContainerID: "pod"})
	if r := c.ask(v1.MethodHyper, hyper("ping", "")); r.Error != "client not attached to a vm" {
		t.Errorf("after bye: %+v", r)
	}
	// It is the VM of who runs the server, who still needs it.
	if got := dial(t, socket).must(v1.MethodAttach, v1.Attach{ContainerID: "pod"}); got != `{"version":1}` {
		t.Errorf("attach answers %s", got)
	}
}
