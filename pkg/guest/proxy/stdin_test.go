package proxy

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// pass lets time go by in a synctest bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestStdinBeforeStart: it is held, in order and with its end. The original
// blocks the connection and cuts it off after 30 s; this proxy holds what fits
// into its backlog for as long as the client stays.
func TestStdinBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		shim := shimPeer(t, s, token)
		for _, data := range []string{"one", "two", "", "after the end"} {
			shim.stdin(data)
		}
		pass(time.Hour) // longer than any limit
		if len(g.Stdin) != 0 {
			t.Errorf("before the start the guest got %v", g.Stdin)
		}
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		synctest.Wait()
		want := [][]byte{[]byte("one"), []byte("two"), {}, []byte("after the end")}
		if diff := cmp.Diff(want, g.Stdin[3]); diff != "" {
			t.Errorf("stdin (-want +got):\n%s", diff)
		}
	})
}

// TestStdinIsCutToSize: what is too large for the guest is split, where the
// original cuts off the client, or lets a C agent panic.
func TestStdinIsCutToSize(t *testing.T) {
	for dialect, want := range map[hyperstart.Dialect][]int{
		hyperstart.DialectHyperhq: {512, 512, 276, 0},
		hyperstart.DialectClearC:  {512, 512, 276, 0},
		hyperstart.DialectClearGo: {1300, 0},
		hyperstart.DialectCCv2:    {1300, 0},
	} {
		s, g := newServer(t, dialect, Options{})
		_, shim, _ := started(t, s)
		shim.stdin(strings.Repeat("x", 1300))
		shim.stdin("")
		g.Input(1300, true)
		var sizes []int
		for _, m := range g.Stdin[3] {
			sizes = append(sizes, len(m))
		}
		if diff := cmp.Diff(want, sizes); diff != "" {
			t.Errorf("%s: sizes (-want +got):\n%s", dialect, diff)
		}
	}
	s, g := newServer(t, hyperstart.DialectClearGo, Options{})
	_, shim, _ := started(t, s)
	shim.stdin(strings.Repeat("x", proxyproto.MaxStreamPayload))
	g.Input(proxyproto.MaxStreamPayload, false)
	if n := len(g.Stdin[3][0]); n != 10228 {
		t.Errorf("message of %d bytes, want 10228", n)
	}
}

// TestStdinIsPaced: a C agent gets the next piece after two PING round trips.
func TestStdinIsPaced(t *testing.T) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectHyperhq, hyperstart.DialectClearC} {
		t.Run(dialect.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pings := make(chan struct{})
				s, g := newServerWith(t, dialect, Options{}, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
					if code == hyperstart.Ping {
						<-pings
					}
					return hyperstart.Ack, nil
				})
				_, shim, _ := started(t, s)
				shim.stdin(strings.Repeat("x", 1024))
				shim.stdin("y")
				for i, want := range []int{1, 1, 2, 2, 3, 3} {
					pass(time.Hour) // no limit makes it go on
					if got := len(g.Stdin[3]); got != want {
						t.Errorf("%d messages after %d round trips, want %d", got, i, want)
					}
					pings <- struct{}{}
				}
			})
		})
	}
}

func TestStdinCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = hyperstart.CreditWindow
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, token := started(t, s)
		data := bytes.Repeat([]byte("0123456789abcdef"), (window+100<<10)/16)
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 50000):] {
			shim.stdin(string(rest[:min(len(rest), 50000)]))
		}
		synctest.Wait()
		if got := len(g.Input(0, false)); got != window {
			t.Errorf("the guest got %d bytes, it granted %d", got, window)
		}
		// Who waits until the rest has gone does not wait on the shim's connection.
		drained := make(chan error, 1)
		frames := client.NewFrames("pod", dialer(s))
		go func() {
			_, err := frames.Hyper(t.Context(), proxyproto.HyperDrainStdin, token, proxyproto.DrainStdin{})
			drained <- err
		}()
		shim.must(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
		for _, grant := range []hyperstart.Credit{{Seq: 4, Bytes: 1 << 20}, {Seq: 99, Bytes: 1 << 20}, {Seq: 3, Bytes: 1000}} {
			if _, err := g.TTY.Write(hyperstart.AppendCredit(nil, grant)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := len(g.Input(0, false)); got != window+1000 {
			t.Errorf("the guest got %d bytes, it granted %d", got, window+1000)
		}
		select {
		case err := <-drained:
			t.Errorf("drained too early: %v", err)
		default:
		}
		if _, err := g.TTY.Write(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 3, Bytes: 1<<32 - 1})); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.Input(len(data), false), data) {
			t.Error("stdin differs")
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

// TestStdinAfterExit goes nowhere: it neither ends the connection, nor blocks
// it, nor keeps memory.
func TestStdinAfterExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, token := started(t, s)
		big := strings.Repeat("x", proxyproto.MaxStreamPayload)
		for range hyperstart.CreditWindow/len(big) + 3 { // more than the guest takes
			shim.stdin(big)
		}
		drained := make(chan error, 1)
		go func() {
			_, err := client.NewFrames("pod", dialer(s)).Hyper(t.Context(), proxyproto.HyperDrainStdin, token, proxyproto.DrainStdin{})
			drained <- err
		}()
		synctest.Wait()
		g.Exit(3, 7)
		shim.expect("notification ProcessExited 007")
		if err := <-drained; err == nil || !strings.Contains(err.Error(), "process has exited") {
			t.Errorf("drain: %v", err)
		}
		for range 2 * stdinBacklog / len(big) {
			shim.stdin(big)
		}
		shim.must(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
		session, err := pod(t, s).find(token)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(session.stdin.queue); n != 0 {
			t.Errorf("%d items are kept", n)
		}
	})
}

// TestStdinBacklog: a client that does not wait is not read any more, whether
// its frames are large or empty.
func TestStdinBacklog(t *testing.T) {
	for _, size := range []int{0, 1, proxyproto.MaxStreamPayload} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
			runtime := runtimePeer(t, s)
			shim := shimPeer(t, s, runtime.token()) // its process never starts
			var sent atomic.Int64
			go func() {
				data := make([]byte, size)
				for shim.w.WriteStream(proxyproto.StreamStdin, data) == nil {
					sent.Add(1)
				}
			}()
			synctest.Wait()
			held := sent.Load() * int64(size+proxyproto.StdinOverhead)
			if held < stdinBacklog/2 || held > stdinBacklog+2*(1<<17) {
				t.Errorf("frames of %d bytes: %d held, want about %d", size, held, stdinBacklog)
			}
			runtime.must(proxyproto.CmdHyper, hyper("ping", "", ""))
			_ = shim.conn.Close()
			synctest.Wait()
		})
	}
}

// TestDrainStdinEndsWithItsContext: a client that gives up hangs up.
func TestDrainStdinEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		shimPeer(t, s, token).stdin("never read")
		synctest.Wait() // the proxy has it
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client.NewFrames("pod", dialer(s)).Hyper(ctx, proxyproto.HyperDrainStdin, token, proxyproto.DrainStdin{})
		if err == nil || err.Error() != "proxy: Hyper: context deadline exceeded" {
			t.Errorf("error %v", err)
		}
	})
}

// TestStdinBeforeDisconnect: what a shim has sent before it leaves gets to the process, and one that does
// not read it is left after a while.
func TestStdinBeforeDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectCCv2, Options{})
		_, shim, _ := started(t, s)
		shim.stdin("last words")
		shim.stdin("")
		shim.send(proxyproto.CmdDisconnectShim, nil)
		shim.expect("hung up")
		if got := string(g.Input(2, true)); got != "last words" {
			t.Errorf("the process has read %q", got)
		}
		runtime := runtimePeer(t, s)
		token := runtime.token()
		deaf := shimPeer(t, s, token)
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, `{"id":"d","process":{"id":"init","args":["sh"]}}`))
		for range hyperstart.CreditWindow/(64<<10) + 1 {
			deaf.stdin(strings.Repeat("x", 64<<10))
		}
		begin := time.Now()
		deaf.send(proxyproto.CmdDisconnectShim, nil)
		deaf.expect("hung up")
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("a process that does not read is left after %s", took)
		}
	})
}
