package proxyv1_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	g.Mu.Lock()
	defer g.Mu.Unlock()
	if len(g.Stdin[wiretest.FirstSeq+2]) > 0 {
		t.Error("the other one got the input")
	}
}

// TestDiesWithinAMessage: what a shim has begun to say when it dies never reaches the process, which goes on.
func TestDiesWithinAMessage(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	_, streams := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	for _, b := range [][]byte{hyperstart.AppendTTY(nil, 1, []byte("whole")), hyperstart.AppendTTY(nil, 1, []byte("half of it"))[:15]} {
		if _, err := streams.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	_ = streams.Close()
	g.WaitFor(func() bool { return len(g.Stdin[wiretest.FirstSeq]) > 0 })
	g.Output(wiretest.FirstSeq, "dropped")
	g.WaitFor(func() bool { return g.Credits[wiretest.FirstSeq] >= len("dropped") }) // the proxy has noticed
	g.Mu.Lock()
	defer g.Mu.Unlock()
	if got := string(bytes.Join(g.Stdin[wiretest.FirstSeq], nil)); got != "whole" {
		t.Errorf("the process has read %q", got)
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
	socket, server, g := startServer(t, hyperstart.DialectCCv2, nil)
	ours, theirs := pair(t)
	left := make(chan struct{})
	go func() {
		defer close(left)
		if err := server.ServeAny(theirs); err != nil {
			t.Error(err)
		}
	}()
	c := newClient(t, ours)
	c.must(v1.MethodAttach, v1.Attach{ContainerID: "pod"})
	base, streams := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	_ = c.conn.Close()
	<-left // the proxy has noticed

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

// TestUnread: the end of the server does not wait for a client that does not read its output.
func TestUnread(t *testing.T) {
	socket, g := start(t, hyperstart.DialectCCv2, nil)
	c := attached(t, socket)
	_, streams := c.allocate(2)
	_, other := c.allocate(2)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
	for range 8 {
		g.Output(wiretest.FirstSeq, strings.Repeat("x", 60000))
	}
	g.Exit(wiretest.FirstSeq, 1)
	c.must(v1.MethodHyper, hyper("ping", "")) // what was sent has arrived
	g.Close()
	if _, err := io.Copy(io.Discard, other); err != nil { // the proxy has noticed
		t.Error(err)
	}
	// The descriptor ends, behind what is in its buffer, though nobody reads meanwhile.
	if r := c.ask(v1.MethodAllocateIO, v1.AllocateIO{NStreams: 1}); r.Success {
		t.Error("streams of a lost vm")
	}
	if _, err := io.Copy(io.Discard, streams); err != nil {
		t.Error(err)
	}
}

// TestDeadClients: a client that goes while its command runs leaves nothing.
func TestDeadClients(t *testing.T) {
	socket, _ := start(t, hyperstart.DialectCCv2, nil)
	mute, connections := filepath.Join(t.TempDir(), "mute.sock"), make(chan net.Conn)
	l, err := net.Listen("unix", mute)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		defer close(connections)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections <- conn
		}
	}()
	for range 20 {
		c := dial(t, socket)
		if err := c.w.WriteRequest(v1.MethodHello, v1.Hello{ContainerID: "x", CtlSerial: mute, IOSerial: mute}); err != nil {
			t.Fatal(err)
		}
		ctl, tty := <-connections, <-connections
		_ = c.conn.Close()
		for _, port := range []net.Conn{ctl, tty} { // the proxy hangs up there
			_ = port.SetReadDeadline(time.Now().Add(hang))
			if _, err := io.Copy(io.Discard, port); err != nil {
				t.Errorf("a port of a VM that nobody waits for: %v", err)
			}
			_ = port.Close()
		}
	}
}

// TestResizeBesideInput: a command of a terminal whose process takes no input holds up neither its
// output nor other clients.
func TestResizeBesideInput(t *testing.T) {
	resized := make(chan struct{})
	socket, g := start(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code == hyperstart.WinSize {
			<-resized
		}
		return hyperstart.Ack, nil
	})
	c := attached(t, socket)
	base, streams := c.allocate(1)
	c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"terminal":true,"stdio":1}}`))
	shim := attached(t, socket)
	if err := shim.w.WriteRequest(v1.MethodHyper, hyper("winsize", `{"seq":1,"row":24,"column":80}`)); err != nil {
		t.Fatal(err)
	}
	g.WaitCommand(hyperstart.WinSize, 1)
	written := make(chan struct{})
	go func() { // more than all buffers have room for
		defer close(written)
		for range 100 {
			if _, err := streams.Write(hyperstart.AppendTTY(nil, base, make([]byte, 60000))); err != nil {
				return
			}
		}
	}()
	g.Output(wiretest.FirstSeq, "out")
	r := hyperstart.NewTTYReader(streams)
	want(t, r, base, "out")
	close(resized)
	if answer, err := shim.r.ReadResponse(); err != nil || answer.Err() != nil {
		t.Errorf("%+v, %v", answer, err)
	}
	g.Output(wiretest.FirstSeq, "more")
	want(t, r, base, "more")
	_ = streams.Close()
	<-written
}

// TestBadClients: each gets an error or is cut off, and the pod goes on.
func TestBadClients(t *testing.T) {
	socket, _ := start(t, hyperstart.DialectCCv2, nil)
	good := attached(t, socket)
	begin := string(message(`{"id":"attach","data":{"containerId":"pod"}}`))
	for name, data := range map[string]string{
		"attached, 4 GiB": begin + "\xff\xff\xff\xff\x00\x00\x00\x00", "attached, too long": begin + "\x00\xff\xff\xff\x00\x00\x00\x00{",
		"attached, half a header": begin + "\x00\x00", "attached, no JSON": begin + "\x00\x00\x00\x03\x00\x00\x00\x00abc",
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
		if answer, err := io.ReadAll(c.conn); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") || strings.Contains(string(answer), "success") != strings.HasPrefix(name, "attached") {
			t.Errorf("%s: answered %q, %v", name, answer, err)
		}
		good.must(v1.MethodHyper, hyper("ping", ""))
	}
	var all []*client
	for n := range 300 {
		c := dial(t, socket)
		if n%3 > 0 { // the others send nothing
			if _, err := c.conn.Write([]byte("\x00\x00\x00\x20\x00\x00\x00\x00{\"id\":")[:10*(n%3)-9]); err != nil { // a byte, or a half
				t.Fatal(err)
			}
		}
		all = append(all, c)
	}
	good.must(v1.MethodHyper, hyper("ping", ""))
	all[297].must(v1.MethodAttach, v1.Attach{ContainerID: "pod"})
	for _, c := range all {
		_ = c.conn.Close()
	}
}
