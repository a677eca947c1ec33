package proxyv1_test

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/socketpair"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	a, b, err := socketpair.New()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// client is a program of Clear Containers 2.1.
type client struct {
	t    testing.TB
	conn *net.UnixConn
	r    *v1.Reader
	w    *v1.Writer
}

func dial(t testing.TB, socket string) *client {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(hang))
	return &client{t: t, conn: conn.(*net.UnixConn), r: v1.NewReader(conn), w: v1.NewWriter(conn)}
}

// attached returns a client that is attached to the VM.
func attached(t testing.TB, socket string) *client {
	t.Helper()
	c := dial(t, socket)
	c.must(v1.MethodAttach, v1.Attach{ContainerID: "pod"})
	return c
}

// ask sends a request and returns the response.
func (c *client) ask(m v1.Method, data any) v1.Response {
	c.t.Helper()
	if err := c.w.WriteRequest(m, data); err != nil {
		c.t.Fatalf("%s: %v", m, err)
	}
	r, err := c.r.ReadResponse()
	if err != nil {
		c.t.Fatalf("%s: %v", m, err)
	}
	return r
}

// must returns the data of a response that is no error.
func (c *client) must(m v1.Method, data any) string {
	c.t.Helper()
	r := c.ask(m, data)
	if err := r.Err(); err != nil {
		c.t.Fatalf("%s: %v", m, err)
	}
	return string(r.Data)
}

// allocate allocates streams.
func (c *client) allocate(n int) (base uint64, streams *os.File) {
	c.t.Helper()
	var result v1.AllocateIOResult
	if err := json.Unmarshal([]byte(c.must(v1.MethodAllocateIO, v1.AllocateIO{NStreams: n})), &result); err != nil {
		c.t.Fatal(err)
	}
	f, err := v1.ReceiveFile(c.conn)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = f.Close() })
	return result.IOBase, f
}

func hyper(name, data string) v1.Hyper {
	h := v1.Hyper{HyperName: name}
	if data != "" {
		h.Data = json.RawMessage(data)
	}
	return h
}

// want reads tty messages until there is this text of a sequence number, and nothing else.
func want(t *testing.T, r *hyperstart.TTYReader, seq uint64, text string) {
	t.Helper()
	got := ""
	for got != text {
		from, payload, err := r.Read()
		if err != nil || from != seq || len(payload) == 0 || !strings.HasPrefix(text, got+string(payload)) {
			t.Fatalf("after %q came %q of %d, %v; want %q of %d", got, payload, from, err, text, seq)
		}
		got += string(payload)
	}
}

// wantExit reads the end of a process.
func wantExit(t *testing.T, r *hyperstart.TTYReader, seq uint64, status byte) {
	t.Helper()
	for _, want := range []string{"", string([]byte{status})} {
		from, payload, err := r.Read()
		if err != nil || from != seq || string(payload) != want {
			t.Fatalf("end: %q of %d, %v; want %q of %d", payload, from, err, want, seq)
		}
	}
}
