package proxyv1_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// TestForeignInput: input for another number closes the descriptor, and harms nobody else.
func TestForeignInput(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	_, bad := c.allocate(2)
	base, good := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"d","process":{"stdio":3,"stderr":4}}`))
	if _, err := bad.Write(hyperstart.AppendTTY(nil, base, []byte("for the other one"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := hyperstart.NewTTYReader(bad).Read(); !errors.Is(err, io.EOF) {
		t.Errorf("its descriptor: %v", err)
	}
	g.Output(wiretest.FirstSeq+2, "out")
	want(t, hyperstart.NewTTYReader(good), base, "out")
	g.Output(wiretest.FirstSeq, "dropped") // its process goes on
	c.must(v1.MethodHyper, hyper("ping", ""))
	g.WaitFor(func() bool { return g.Credits[wiretest.FirstSeq] >= len("dropped") })
	if len(g.Stdin[wiretest.FirstSeq+2]) > 0 {
		t.Error("the other one got the input")
	}
}

// TestLost: the end of a VM closes the descriptors, as the original does.
func TestLost(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	_, streams := c.allocate(2)
	g.Close()
	if _, _, err := hyperstart.NewTTYReader(streams).Read(); !errors.Is(err, io.EOF) {
		t.Errorf("the descriptor: %v", err)
	}
	if r := c.ask(v1.MethodAllocateIO, v1.AllocateIO{NStreams: 1}); r.Success {
		t.Error("streams of a lost vm")
	}
}

// TestStays: streams outlive the connection that has allocated them, and clients of both
// versions share a socket.
func TestStays(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	base, streams := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	_ = c.conn.Close()

	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := proxyproto.NewWriter(conn).WriteCommand(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"}); err != nil {
		t.Fatal(err)
	}
	if f, err := proxyproto.NewReader(conn).ReadFrame(); err != nil || f.Error {
		t.Fatalf("a client of version 2: %s, %v", f, err)
	}
	g.Output(wiretest.FirstSeq, "out")
	want(t, hyperstart.NewTTYReader(streams), base, "out")
}

// TestBadClients: each gets an error or is cut off, and the pod goes on.
func TestBadClients(t *testing.T) {
	socket, _ := start(t, hyperstart.DialectCCv2, nil)
	good := attached(t, socket)
	for name, data := range map[string]string{
		"nothing": "", "one byte": "\x00", "half a header": "\x00\x00\x00\x05\x00", "4 GiB": "\xff\xff\xff\xff\x00\x00\x00\x00",
		"too long": "\x00\xff\xff\xff\x00\x00\x00\x00{", "no JSON": "\x00\x00\x00\x03\x00\x00\x00\x00abc", "no object": "\x00\x00\x00\x02\x00\x00\x00\x00[]",
		"half a message": "\x00\x00\x00\x20\x00\x00\x00\x00{\"id\":", "version 3": "\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00", "text": "GET / HTTP/1.1\r\n\r\n",
	} {
		c := dial(t, socket)
		if _, err := c.conn.Write([]byte(data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.conn.CloseWrite(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if answer, err := io.ReadAll(c.conn); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") || len(answer) > 0 {
			t.Errorf("%s: answered %q, %v", name, answer, err)
		}
		good.must(v1.MethodHyper, hyper("ping", ""))
	}
	var all []*client
	for range 1000 {
		all = append(all, dial(t, socket))
	}
	good.must(v1.MethodHyper, hyper("ping", ""))
	all[999].must(v1.MethodAttach, v1.Attach{ContainerID: "pod"})
	for _, c := range all {
		_ = c.conn.Close()
	}
}
