package podvm

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestClientLog: clients of the socket, with what they say and what is wrong with them, write no more to the log
// than a bound, and what is dropped is counted.
func TestClientLog(t *testing.T) {
	var out bytes.Buffer
	defer func(to io.Writer) { log.L.Logger.SetOutput(to) }(log.L.Logger.Out)
	log.L.Logger.SetOutput(&out)
	clients := newClientLog(context.Background(), "s")
	server := proxy.NewServer(proxy.Options{Log: clients.add, CutOff: clients.cutOff})
	defer func() { _ = server.Close() }()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- server.Listen(l) }()
	send := func(entries ...proxyproto.LogEntry) { sendLog(t, socket, entries) }
	said := proxyproto.LogEntry{Source: proxyproto.SourceShim, Level: proxyproto.LevelWarn, Msg: "said\x1b[2J"}
	long := strings.Repeat("x", 4_000_000)
	send(said)
	send(proxyproto.LogEntry{Source: proxyproto.LogSource(long), Level: proxyproto.LevelWarn, Msg: "m"})
	send(proxyproto.LogEntry{Source: proxyproto.SourceShim, Level: proxyproto.LogLevel(long), Msg: "m"})
	send(proxyproto.LogEntry{Source: proxyproto.SourceShim, Level: proxyproto.LevelInfo, Msg: long})
	for range 2 * logBurst {
		send(said, said, said, proxyproto.LogEntry{})
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != logBurst || out.Len() > 1<<16 {
		t.Errorf("%d lines of %d bytes", len(lines), out.Len())
	}
	if !strings.Contains(out.String(), `level=warning msg="said?[2J" sandbox=s source=shim`) {
		t.Errorf("what a client says is not logged: %s", lines[0])
	}
	if n := strings.Count(out.String(), "client of the proxy was cut off"); n < 2 || strings.Contains(out.String(), strings.Repeat("x", 5000)) {
		t.Errorf("%d clients were cut off", n)
	}
	clients.since = clients.since.Add(-logWindow)
	clients.add(said)
	if !strings.Contains(out.String(), `msg="clients of the proxy log too much" dropped=704`) {
		t.Errorf("after a while: %s", out.String()[out.Len()-300:])
	}
}

// sendLog is a client that sends these entries, and waits until the proxy has read them or cut it off.
func sendLog(t *testing.T, socket string, entries []proxyproto.LogEntry) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	w := proxyproto.NewWriter(conn)
	for _, e := range entries {
		payload, err := proxyproto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteFrame(proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamLog)}, Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}
