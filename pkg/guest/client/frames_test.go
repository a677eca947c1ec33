package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// connect starts a process and returns its session, whose sequence numbers
// are 3 and 4.
func connect(t testing.TB, s *proxy.Server) *client.FrameSession {
	t.Helper()
	frames := client.NewFrames("pod", dialer(s))
	session, err := frames.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	if _, err := frames.Hyper(t.Context(), "newcontainer", session.Token(), json.RawMessage(newProcess)); err != nil {
		t.Fatal(err)
	}
	return session
}

// TestSessionOutput: all data of both streams, then the exit.
func TestSessionOutput(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectCCv2, nil)
	session := connect(t, s)
	const total = 5 << 20
	var wg sync.WaitGroup
	for i, stream := range []*client.Output{session.Stdout, session.Stderr} {
		wg.Go(func() {
			var b bytes.Buffer
			n, err := stream.WriteTo(&b)
			if n != total || err != nil || strings.Count(b.String(), string("oe"[i])) != total {
				t.Errorf("stream %d: %d bytes, %v", i, n, err)
			}
		})
	}
	var guests sync.WaitGroup
	for i := range uint64(2) {
		guests.Go(func() { produce(g, 3+i, "oe"[i], total, 60000) })
	}
	guests.Wait()
	g.Exit(3, 17)
	wg.Wait()
	<-session.Done()
	if status, err := session.Exit(); status != 17 || err != nil {
		t.Errorf("exit %d, %v", status, err)
	}
}

// produce writes n bytes of output in messages of a size, as credit comes.
func produce(g *wiretest.Guest, seq uint64, b byte, n, size int) {
	message := strings.Repeat(string(b), size)
	for sent := 0; sent < n; {
		part := min(size, n-sent)
		g.WaitFor(func() bool { return hyperstart.CreditWindow+g.Credits[seq] >= sent+part })
		g.Output(seq, message[:part])
		sent += part
	}
}

// TestSlowConsumer: stdout that nobody takes holds up neither stderr, nor
// signals, nor the exit, and gives the guest no credit.
func TestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, nil)
		session := connect(t, s)
		produce(g, 3, 'o', hyperstart.CreditWindow, hyperstart.MaxTTYPayload)
		var stderr bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := session.Stderr.WriteTo(&stderr); err != nil {
				t.Error(err)
			}
		}()
		produce(g, 4, 'e', 4*hyperstart.CreditWindow, 50000)
		if err := session.Signal(t.Context(), 15); err != nil {
			t.Error(err)
		}
		if err := session.Resize(t.Context(), 40, 100); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if g.Credits[3] != 0 {
			t.Errorf("credit of %d for output that nobody took", g.Credits[3])
		}
		g.Exit(3, 1)
		<-done
		if stderr.Len() != 4*hyperstart.CreditWindow {
			t.Errorf("%d bytes of stderr", stderr.Len())
		}
		<-session.Done()
		n, err := session.Stdout.WriteTo(io.Discard) // what came is still there
		if n != hyperstart.CreditWindow || err != nil {
			t.Errorf("%d bytes of stdout, %v", n, err)
		}
	})
}

// TestSignalWhileGuestIsBusy: the answer comes when the guest's does; a caller
// that gives up before does not disturb the next one.
func TestSignalWhileGuestIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s, g := newServer(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
			switch code {
			case hyperstart.KillContainer:
				<-hold
				return hyperstart.Error, []byte(`{"class":"not_found","message":"gone"}`)
			default:
				return hyperstart.Ack, nil
			}
		})
		session := connect(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- session.Signal(ctx, 15) }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		second := make(chan error, 1)
		go func() { second <- session.Resize(t.Context(), 1, 1) }()
		g.Output(3, "meanwhile")
		synctest.Wait()
		close(hold)
		if err := <-second; err != nil {
			t.Errorf("resize got the answer of the signal: %v", err)
		}
		var remote *proxyproto.RemoteError
		if err := session.Signal(t.Context(), 9); !errors.As(err, &remote) || remote.Class != "not_found" {
			t.Errorf("error %v", err)
		}
	})
}

func TestWriteStdin(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectCCv2, nil)
	session := connect(t, s)
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*client.StdinWindow/16)
	done := make(chan error, 1)
	go func() {
		err := session.WriteStdin(t.Context(), bytes.NewReader(data))
		if err == nil {
			err = session.CloseStdin()
		}
		done <- err
	}()
	for read := 0; read < len(data); { // slower than the client
		var n int
		g.WaitFor(func() bool {
			n = len(bytes.Join(g.Stdin[3], nil)) - read
			return n > 0
		})
		read += n
		if _, err := g.TTY.Write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 3, Bytes: uint32(n)})); err != nil {
			t.Fatal(err)
		}
		if err := session.Signal(t.Context(), 10); err != nil { // the connection stays free
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(g.Input(len(data), true), data) {
		t.Error("stdin differs")
	}
}

// TestWriteStdinEndsWithTheProcess: not only with its input.
func TestWriteStdinEndsWithTheProcess(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectCCv2, nil)
	session := connect(t, s)
	done := make(chan error, 1)
	endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	go func() { done <- session.WriteStdin(t.Context(), endless) }()
	g.Input(hyperstart.CreditWindow, false)
	g.Exit(3, 0)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "process has exited") {
		t.Errorf("error %v", err)
	}
	broken := errors.New("broken")
	if err := session.WriteStdin(t.Context(), readerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestSessionIsLost: with the VM, with a reason, and whoever waits gets it.
func TestSessionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
			if code == hyperstart.KillContainer {
				return 0, nil // never answered
			}
			return hyperstart.Ack, nil
		})
		session := connect(t, s)
		g.Output(3, "last words")
		waiting := make(chan error, 1)
		go func() { waiting <- session.Signal(t.Context(), 15) }()
		synctest.Wait()
		g.Close()
		<-session.Done()
		if _, err := session.Exit(); !errors.Is(err, client.ErrSessionLost) {
			t.Errorf("exit: %v", err)
		}
		if err := <-waiting; err == nil {
			t.Error("the signal succeeded")
		}
		var b bytes.Buffer
		if _, err := session.Stdout.WriteTo(&b); err != nil || b.String() != "last words" {
			t.Errorf("stdout %q, %v", b.String(), err)
		}
		if err := session.Signal(t.Context(), 9); !errors.Is(err, client.ErrSessionLost) {
			t.Errorf("signal: %v", err)
		}
		if err := session.CloseStdin(); err == nil {
			t.Error("stdin of a lost session was closed")
		}
		if _, err := client.NewFrames("pod", dialer(s)).Connect(t.Context()); err == nil || err.Error() != "proxy: AttachVM: vm pod is lost" {
			t.Errorf("connect: %v", err)
		}
		_ = session.Close()
		_ = session.Close() // again
	})
}

// TestServerClose ends everything, whatever is under way.
func TestServerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, hyperstart.DialectHyperhq, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
			if code == hyperstart.Ping {
				return 0, nil // never answered
			}
			return hyperstart.Ack, nil
		})
		session := connect(t, s)
		frames := client.NewFrames("pod", dialer(s))
		errs := make(chan error, 3)
		go func() { _, err := frames.Hyper(t.Context(), "ping", "", nil); errs <- err }()
		go func() { errs <- session.WriteStdin(t.Context(), bytes.NewReader(make([]byte, 4<<20))) }()
		synctest.Wait()
		go func() { _, err := frames.Hyper(t.Context(), "ping", "", nil); errs <- err }()
		synctest.Wait()
		_ = s.Close()
		_ = s.Close()
		for range 3 {
			if err := <-errs; err == nil {
				t.Error("something succeeded")
			}
		}
		if _, err := frames.Hyper(t.Context(), "ping", "", nil); err == nil {
			t.Error("a closed server answers")
		}
	})
}

// TestClientDistrustsTheProxy: it may be another program at the socket.
func TestClientDistrustsTheProxy(t *testing.T) {
	for name, reply := range map[string]proxyproto.Frame{
		"wrong command":  {Header: proxyproto.Header{Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdSignal)}},
		"not a response": {Header: proxyproto.Header{Type: proxyproto.TypeNotification}, Payload: []byte{1}},
		"no token":       {Header: proxyproto.Header{Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdAttachVM)}, Payload: []byte(`{"io":{}}`)},
		"no json":        {Header: proxyproto.Header{Type: proxyproto.TypeResponse, Opcode: uint8(proxyproto.CmdAttachVM)}, Payload: []byte(`x`)},
	} {
		t.Run(name, func(t *testing.T) {
			frames := client.NewFrames("pod", func() (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer func() { _ = theirs.Close() }()
					if _, err := proxyproto.NewReader(theirs).ReadFrame(); err == nil {
						_ = proxyproto.NewWriter(theirs).WriteFrame(reply)
					}
				}()
				return ours, nil
			})
			if _, err := frames.Connect(t.Context()); err == nil {
				t.Error("accepted")
			}
		})
	}
	refused := errors.New("refused")
	frames := client.NewFrames("pod", func() (net.Conn, error) { return nil, refused })
	if err := frames.Register(t.Context(), "c", "t"); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

// TestConnectEndsWithItsContext: whichever step the proxy does not answer.
func TestConnectEndsWithItsContext(t *testing.T) {
	for silent, command := range []proxyproto.Command{proxyproto.CmdAttachVM, proxyproto.CmdConnectShim, proxyproto.CmdHyper} {
		t.Run(command.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := make(chan []byte, 3)
				for _, answer := range []string{`{"io":{"tokens":["t"]}}`, "", ""}[:silent] {
					answers <- []byte(answer)
				}
				frames := client.NewFrames("pod", func() (net.Conn, error) {
					ours, theirs := net.Pipe()
					go answerFrames(theirs, answers)
					return ours, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				_, err := frames.Connect(ctx)
				if want := "proxy: " + command.String() + ": context deadline exceeded"; err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
				if took := time.Since(begin); took != time.Second {
					t.Errorf("after %s", took)
				}
			})
		})
	}
}

// answerFrames answers commands for as long as there are answers.
func answerFrames(conn net.Conn, answers <-chan []byte) {
	defer func() { _ = conn.Close() }()
	r, w := proxyproto.NewReader(conn), proxyproto.NewWriter(conn)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return
		}
		select {
		case answer := <-answers:
			_ = w.WriteResponse(f.Command(), answer)
		default:
		}
	}
}
