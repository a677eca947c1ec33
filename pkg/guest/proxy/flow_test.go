package proxy

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestGuestOversteps: a guest that breaks the rules of streams ends its VM,
// with a reason.
func TestGuestOversteps(t *testing.T) {
	const window = hyperstart.CreditWindow
	large := strings.Repeat("x", hyperstart.MaxTTYPayload)
	for _, tt := range []struct {
		name    string
		dialect hyperstart.Dialect
		guest   func(*wiretest.Guest)
		want    string
	}{
		{"more than granted", hyperstart.DialectCCv2, func(g *wiretest.Guest) {
			for range window / len(large) {
				g.Output(3, large)
			}
			g.Output(3, "x")
		}, "tty port: guest sent 1 bytes on stream 3, 0 are granted"},
		{"more than granted on stderr", hyperstart.DialectCCv2, func(g *wiretest.Guest) {
			for range window/len(large) + 1 {
				g.Output(4, large)
			}
		}, "tty port: guest sent 65536 bytes on stream 4, 0 are granted"},
		{"output after the end", hyperstart.DialectClearGo, func(g *wiretest.Guest) { g.Output(3, "", "xy") }, "tty port: guest sent 2 bytes on stream 3 after its end"},
		{"stderr after the end", hyperstart.DialectCCv2, func(g *wiretest.Guest) { g.Output(3, ""); g.Output(4, "x") }, "tty port: guest sent 1 bytes on stream 4 after its end"},
		{"exit on the wrong port", hyperstart.DialectHyperhq, func(g *wiretest.Guest) { g.Exit(3, 1) }, "tty port: guest sent 1 bytes on stream 3 after its end"},
		{"two exits", hyperstart.DialectClearC, func(g *wiretest.Guest) { g.Exit(3, 1); g.Output(3, "x") }, "tty port: guest sent 1 bytes on stream 3 after its end"},
		{"a stream of nobody", hyperstart.DialectCCv2, func(g *wiretest.Guest) { g.Output(5, "xyz") }, "tty port: guest sent 3 bytes on stream 5, which no process has had"},
		{"end of a stream of nobody", hyperstart.DialectCCv2, func(g *wiretest.Guest) { g.Output(2, "") }, "tty port: guest sent 0 bytes on stream 2, which no process has had"},
		{"half a credit", hyperstart.DialectCCv2, func(g *wiretest.Guest) { g.Output(0, "12345") }, "tty port: hyperstart: credit message of 5 bytes, not a multiple of 12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lost := make(chan error, 1)
			s, g := newServerFor(t, tt.dialect, Options{}, handlers{lost: func(err error) { lost <- err }}, nil)
			runtime := runtimePeer(t, s)
			token := runtime.token()
			shim := stuckShim(t, s, token)
			runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
			tt.guest(g)
			if err := <-lost; err == nil || err.Error() != tt.want {
				t.Errorf("lost: %v\nwant %s", err, tt.want)
			}
			buf := make([]byte, 64<<10)
			for {
				if _, err := shim.Read(buf); err != nil {
					break // the shim's connection is closed
				}
			}
			if _, got := runtime.ask(proxyproto.CmdHyper, hyper("ping", "", "")); got != "No multicast available for CTL channel" {
				t.Errorf("ping: %q", got)
			}
			if _, got := runtime.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod", NumIOStreams: 1}); got != "vm pod is lost" {
				t.Errorf("attach: %q", got) // the id stays, as with the original
			}
		})
	}
}

// TestSlowClientStallsItselfAlone: with credits, a client that never reads
// holds up neither another one nor commands.
func TestSlowClientStallsItselfAlone(t *testing.T) {
	for _, windowed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, g := newServer(t, hyperstart.DialectCCv2, Options{})
			runtime, quick, _ := started(t, s)
			token := runtime.token()
			stuck := stuckShim(t, s, token)
			if windowed {
				w := proxyproto.NewWriter(stuck)
				if err := w.WriteCommand(proxyproto.CmdHyper, hyper(proxyproto.HyperCredit, "", "{}")); err != nil {
					t.Fatal(err)
				}
				if _, err := stuck.Read(make([]byte, proxyproto.HeaderLen)); err != nil {
					t.Fatal(err)
				}
			}
			runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, `{"id":"d","process":{"id":"init"}}`))
			large := strings.Repeat("x", hyperstart.MaxTTYPayload)
			for range hyperstart.CreditWindow / len(large) {
				g.Output(5, large)
				g.Output(6, large)
			}
			g.Output(3, "still alive")
			quick.expect("stream stdout still alive")
			quick.must(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
			runtime.must(proxyproto.CmdHyper, hyper("ping", "", ""))
			synctest.Wait()
			if g.Credits[5]+g.Credits[6] != 0 {
				t.Errorf("credits %v for what nobody has read", g.Credits)
			}
			g.WaitFor(func() bool { return g.Credits[3] == len("still alive") })
		})
	}
}

// TestSlowClientOfOriginalGuest: without credits the backlog is bounded, and
// when it is full the guest's tty port waits for the client.
func TestSlowClientOfOriginalGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		conn := stuckShim(t, s, token)
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		const size, total = 10000, 4 << 20
		sent := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range total / size {
				g.Output(3, strings.Repeat("x", size))
				sent += size
			}
			g.Exit(3, 9)
		}()
		synctest.Wait()
		if sent < compatBacklog || sent > compatBacklog+3*size {
			t.Errorf("%d bytes taken, the backlog is %d", sent, compatBacklog)
		}
		runtime.must(proxyproto.CmdHyper, hyper("ping", "", "")) // the control port goes on
		r, got := proxyproto.NewReader(conn), 0
		for {
			f, err := r.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f.Type == proxyproto.TypeNotification {
				break
			}
			got += len(f.Payload)
		}
		<-done
		if want := total / size * size; got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
	})
}

// TestSmallMessagesAreSmall: what a guest makes the host hold is in proportion
// to its credit, however small its messages are.
func TestSmallMessagesAreSmall(t *testing.T) {
	const window = hyperstart.CreditWindow
	s, g := newServer(t, hyperstart.DialectCCv2, Options{})
	runtime := runtimePeer(t, s)
	token := runtime.token()
	conn := stuckShim(t, s, token)
	runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
	before := heapInUse()
	var batch []byte
	for range 1024 {
		batch = hyperstart.AppendTTY(batch, 3, []byte("o"))
		batch = hyperstart.AppendTTY(batch, 4, []byte("e"))
	}
	for range window / 1024 {
		if _, err := g.TTY.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heapInUse() - before; grown > 4*window {
		t.Errorf("%d bytes held for %d bytes of output", grown, 2*window)
	}
	g.Exit(3, 0)
	r := proxyproto.NewReader(conn)
	got := map[proxyproto.Stream]int{}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == proxyproto.TypeNotification {
			break
		}
		got[f.Stream()] += len(f.Payload)
	}
	if got[proxyproto.StreamStdout] != window || got[proxyproto.StreamStderr] != window {
		t.Errorf("got %v, want %d of each", got, window)
	}
}

// TestReconnect: output that was not written to a connection that dropped
// goes to the next one, and so does the exit status.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, token := started(t, s)
		g.Output(3, "one")
		shim.expect("stream stdout one")
		_ = shim.conn.Close()
		synctest.Wait()
		g.Output(3, "two") // nobody is there
		synctest.Wait()
		stuck := stuckShim(t, s, token)
		synctest.Wait() // "two" is being written and not read
		g.Output(4, "three")
		_ = stuck.Close()
		synctest.Wait()
		again := stuckShim(t, s, token)
		synctest.Wait()
		_ = again.Close()
		g.Exit(3, 5)
		synctest.Wait()
		last := shimPeer(t, s, token)
		for _, want := range []string{"stream stdout two", "stream stderr three", "notification ProcessExited 005"} {
			last.expect(want)
		}
		last.must(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
	})
}

// TestDiesWithinAFrame: what a shim has begun to say when it dies never reaches the process, and the next
// one goes on.
func TestDiesWithinAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, token := started(t, s)
		shim.stdin("whole")
		frame, err := proxyproto.AppendFrame(nil, proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeStream, Opcode: uint8(proxyproto.StreamStdin)}, Payload: []byte("half of it")})
		if err != nil {
			t.Fatal(err)
		}
		for cut := 1; cut < len(frame); cut++ {
			if _, err := shim.conn.Write(frame[:cut]); err != nil {
				t.Fatal(err)
			}
			_ = shim.conn.Close()
			synctest.Wait()
			shim = shimPeer(t, s, token)
		}
		shim.stdin(" again")
		synctest.Wait()
		g.Exit(3, 0)
		shim.expect("notification ProcessExited 000")
		g.Mu.Lock()
		defer g.Mu.Unlock()
		if got := string(bytes.Join(g.Stdin[3], nil)); got != "whole again" {
			t.Errorf("the process has read %q", got)
		}
	})
}

// TestTokensOfDeadPods: claimed or not, they are of no use, and say so.
func TestTokensOfDeadPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		runtime, shim, claimed := started(t, s)
		fresh := runtime.token()
		g.Close()
		shim.expect("hung up")
		synctest.Wait()
		for _, token := range []string{claimed, fresh} {
			if _, got := newPeer(t, dial(s)).ask(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); got != "vm pod is lost" {
				t.Errorf("claim: %q", got)
			}
			if _, got := runtime.ask(proxyproto.CmdHyper, hyper("execcmd", token, newProcess)); got != "No multicast available for CTL channel" {
				t.Errorf("process: %q", got)
			}
		}
	})
}

// TestReconnectBeforeExitIsRead: a notification that could not be written is not lost.
func TestReconnectBeforeExitIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		stuck := stuckShim(t, s, token)
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		g.Exit(3, 5)
		synctest.Wait() // it is being written
		_ = stuck.Close()
		synctest.Wait()
		shimPeer(t, s, token).expect("notification ProcessExited 005")
	})
}

// TestCreditsSurviveReconnects: whatever is read, lost and written again, the
// guest's window is whole in the end.
func TestCreditsSurviveReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, token := started(t, s)
		total := 0
		for i := range 50 {
			shim.must(proxyproto.CmdHyper, hyper(proxyproto.HyperCredit, "", "{}"))
			chunk := strings.Repeat("x", 1000+i)
			g.Output(3, chunk, chunk)
			total += 2 * len(chunk)
			shim.next() // this round's first one, or the last round's second one
			if i%2 == 0 {
				shim.must(proxyproto.CmdHyper, hyper(proxyproto.HyperCredit, "", `{"stdout":500}`))
			}
			_ = shim.conn.Close()
			synctest.Wait()
			shim = shimPeer(t, s, token)
		}
		synctest.Wait()
		// A chunk that was written before the client asked for a window is
		// credited at once, and again when the client credits a part of it.
		const most = 25 * 500
		if got := g.Credits[3]; got < total || got > total+most {
			t.Errorf("credited %d bytes, want %d and at most %d more", got, total, most)
		}
	})
}

// TestOutputAfterDisconnect: what a process has left behind writes on, as if
// somebody read it.
func TestOutputAfterDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, _ := started(t, s)
		shim.must(proxyproto.CmdHyper, hyper(proxyproto.HyperCredit, "", "{}"))
		chunk := strings.Repeat("x", 1000)
		g.Output(3, chunk)
		shim.next() // is never credited by the client
		g.Output(4, chunk)
		shim.send(proxyproto.CmdDisconnectShim, nil)
		synctest.Wait()
		g.Output(3, chunk, chunk)
		synctest.Wait()
		if out, errs := g.Credits[3], g.Credits[4]; out != 3*len(chunk) || errs != len(chunk) {
			t.Errorf("credited %d bytes of stdout and %d of stderr, want %d and %d", out, errs, 3*len(chunk), len(chunk))
		}
	})
}
