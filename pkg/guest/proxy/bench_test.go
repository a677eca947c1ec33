package proxy

import (
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
)

// benchServer returns a server over Unix sockets, as in production.
func benchServer(b *testing.B, dialect hyperstart.Dialect) (*Server, *wiretest.Guest) {
	b.Helper()
	ctl, guestCtl := socketPair(b)
	tty, guestTTY := socketPair(b)
	g := wiretest.New(b, guestCtl, guestTTY)
	g.Run(true)
	s := NewServer(Options{Dialect: dialect})
	v, err := openVM(b.Context(), "pod", ctl, tty, s.opts, handlers{})
	if err != nil {
		b.Fatal(err)
	}
	s.vms[v.id] = v
	b.Cleanup(func() { _ = s.Close(); g.Close() })
	return s, g
}

// BenchmarkStdout moves output from the guest's port through the server and a
// client to a consumer that drops it.
func BenchmarkStdout(b *testing.B) {
	for _, bench := range []struct {
		name    string
		dialect hyperstart.Dialect
		size    int
	}{
		{"ccv2/64KiB", hyperstart.DialectCCv2, hyperstart.MaxTTYPayload},
		{"ccv2/4KiB", hyperstart.DialectCCv2, 4 << 10},
		{"ccv2/64B", hyperstart.DialectCCv2, 64},
		{"clear-go/1KiB", hyperstart.DialectClearGo, 1 << 10},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, g := benchServer(b, bench.dialect)
			session := connectOver(b, s)
			done := make(chan struct{})
			go func() {
				defer close(done)
				session.Stdout.Discard()
			}()
			message := hyperstart.AppendTTY(nil, 3, make([]byte, bench.size))
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			sent, granted := 0, hyperstart.CreditWindow
			for b.Loop() {
				if bench.dialect.HasCredits() && sent+bench.size > granted {
					g.WaitFor(func() bool {
						granted = hyperstart.CreditWindow + g.Credits[3]
						return sent+bench.size <= granted
					})
				}
				if _, err := g.TTY.Write(message); err != nil {
					b.Fatal(err)
				}
				sent += bench.size
			}
			g.Exit(3, 0)
			<-done
		})
	}
}

// BenchmarkHyper is one command to the guest and its answer.
func BenchmarkHyper(b *testing.B) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectClearGo, hyperstart.DialectCCv2} {
		b.Run(dialect.String(), func(b *testing.B) {
			s, g := benchServer(b, dialect)
			frames := client.NewFrames("pod", overSockets(b, s))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := frames.Hyper(b.Context(), "ping", "", nil); err != nil {
					b.Fatal(err)
				}
				g.Mu.Lock()
				g.Commands = g.Commands[:0]
				g.Mu.Unlock()
			}
		})
	}
}

// BenchmarkExec is one process: token, session, start, exit, disconnect.
func BenchmarkExec(b *testing.B) {
	s, g := benchServer(b, hyperstart.DialectCCv2)
	frames := client.NewFrames("pod", overSockets(b, s))
	b.ReportAllocs()
	for seq := uint64(firstBase); b.Loop(); seq += 2 {
		session, err := frames.Connect(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := frames.Hyper(b.Context(), "execcmd", session.Token(), json.RawMessage(newProcess)); err != nil {
			b.Fatal(err)
		}
		g.Exit(seq, 0)
		<-session.Done()
		_ = session.Close()
	}
}

func connectOver(b *testing.B, s *Server) *client.FrameSession {
	b.Helper()
	frames := client.NewFrames("pod", overSockets(b, s))
	session, err := frames.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = session.Close() })
	if _, err := frames.Hyper(b.Context(), "newcontainer", session.Token(), json.RawMessage(newProcess)); err != nil {
		b.Fatal(err)
	}
	go session.Stderr.Discard()
	return session
}

// overSockets dials with real sockets.
func overSockets(b *testing.B, s *Server) func() (net.Conn, error) {
	b.Helper()
	return func() (net.Conn, error) {
		ours, theirs, err := unixPair()
		if err == nil {
			go func() { _ = s.Serve(theirs) }()
		}
		return ours, err
	}
}

var _ io.WriterTo = (*client.Output)(nil)
