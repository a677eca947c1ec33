package proxy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestOutputAndExit: one message is one frame, all output comes before the
// exit, and the exit comes once.
func TestOutputAndExit(t *testing.T) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectClearC, hyperstart.DialectClearGo, hyperstart.DialectCCv2} {
		t.Run(dialect.String(), func(t *testing.T) {
			s, g := newServer(t, dialect, Options{})
			runtime, shim, _ := started(t, s)
			g.Output(3, "a", "b")
			g.Output(4, "", "c") // an empty message of stderr means nothing
			if dialect != hyperstart.DialectCCv2 {
				g.Output(99, "for nobody")
			}
			g.Output(3, "d")
			g.Exit(3, 137)
			for _, want := range []string{
				"stream stdout a", "stream stdout b", "stream stderr c", "stream stdout d", "notification ProcessExited 137",
			} {
				shim.expect(want)
			}
			g.Output(3, "") // what C agents answer to stdin that comes late
			shim.send(proxyproto.CmdDisconnectShim, nil)
			shim.expect("hung up")
			g.Output(3, "late", "and later") // the second is taken when the first was handled
			runtime.must(proxyproto.CmdHyper, hyper("ping", "", ""))
		})
	}
}

// TestExitInTwoHalves: hyperhq's agent reports the end on both ports, in any order.
func TestExitInTwoHalves(t *testing.T) {
	eof := func(g *wiretest.Guest) { g.Output(3, "") }
	async := func(g *wiretest.Guest) {
		g.Say(hyperstart.HyperhqProcessAsyncEvent, []byte(`{"container":"c","process":"init","event":"finished","status":44}`))
	}
	noise := func(g *wiretest.Guest) {
		g.Say(hyperstart.HyperhqProcessAsyncEvent, []byte(`{"container":"c","process":"other","event":"finished","status":1}`))
		g.Say(hyperstart.HyperhqProcessAsyncEvent, []byte(`{"container":"c","process":"init","event":"started","status":2}`))
		g.Output(99, "")
	}
	for name, halves := range map[string][]func(*wiretest.Guest){"tty first": {eof, async}, "control first": {async, eof}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, g := newServer(t, hyperstart.DialectHyperhq, Options{})
				_, shim, _ := started(t, s)
				g.Output(3, "last words")
				noise(g)
				halves[0](g)
				shim.expect("stream stdout last words")
				synctest.Wait()
				if n := shim.waiting(); n != 0 {
					t.Errorf("%d frames after one half", n)
				}
				halves[1](g)
				shim.expect("notification ProcessExited 044")
			})
		})
	}
}

// TestNullSessions: processes without a token, many per VM. The original could
// do it once. Nothing is left of them, and their output never stalls them.
func TestNullSessions(t *testing.T) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectHyperhq, hyperstart.DialectClearGo, hyperstart.DialectCCv2} {
		t.Run(dialect.String(), func(t *testing.T) {
			s, g := newServer(t, dialect, Options{})
			p := runtimePeer(t, s)
			large := strings.Repeat("x", hyperstart.MaxTTYPayload/8)
			for i := range 6 {
				id := fmt.Sprint("p", i)
				p.must(proxyproto.CmdHyper, hyper("execcmd", "", `{"container":"c","process":{"id":"`+id+`"}}`))
				seq := uint64(firstBase + 2*i)
				async := func() {
					g.Say(hyperstart.HyperhqProcessAsyncEvent, []byte(`{"container":"c","process":"`+id+`","event":"finished","status":0}`))
				}
				sent := 0
				for range 3 * hyperstart.CreditWindow / len(large) {
					if dialect.HasCredits() { // as an honest guest does
						g.WaitFor(func() bool { return hyperstart.CreditWindow+g.Credits[seq] >= sent+len(large) })
					}
					g.Output(seq, large)
					sent += len(large)
				}
				switch {
				case dialect != hyperstart.DialectHyperhq:
					g.Exit(seq, 0)
				case i%2 == 0:
					async()
					g.Output(seq, "")
				default:
					g.Output(seq, "")
					async()
				}
			}
			p.must(proxyproto.CmdHyper, hyper("ping", "", "")) // the control port is behind the exits
			g.Output(99, "so is the tty port")
			g.Output(99, "so is the tty port")
			checkEmpty(t, pod(t, s))
			// A process that could not be started leaves nothing either.
			if _, failure := p.ask(proxyproto.CmdHyper, hyper("execcmd", "", `{"process":{"stdio":1}}`)); failure == "" {
				t.Error("a process with a sequence number was accepted")
			}
			checkEmpty(t, pod(t, s))
		})
	}
}

func checkEmpty(t *testing.T, v *vm) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.bySeq)+len(v.byToken)+len(v.uncredited) != 0 || len(v.freed) > freedTokens {
		t.Errorf("left: %d numbers, %d tokens, %d uncredited, %d freed", len(v.bySeq), len(v.byToken), len(v.uncredited), len(v.freed))
	}
}

// TestManyExecs: what two thousand execs leave behind is nothing.
func TestManyExecs(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectCCv2, Options{})
	frames := client.NewFrames("pod", dialer(s))
	run := func(i int) {
		session, err := frames.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := frames.Hyper(t.Context(), "execcmd", session.Token(), []byte(nil)); err == nil {
			t.Fatal("execcmd without data was accepted")
		}
		data := map[string]any{"container": "c", "process": map[string]string{"id": fmt.Sprint(i)}}
		if _, err := frames.Hyper(t.Context(), "execcmd", session.Token(), data); err != nil {
			t.Fatal(err)
		}
		seq := uint64(firstBase + 2*i)
		g.Output(seq, "hello")
		g.Exit(seq, 3)
		<-session.Done()
		if status, err := session.Exit(); status != 3 || err != nil {
			t.Fatalf("exit %d, %v", status, err)
		}
		session.Stdout.Discard()
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
		g.Mu.Lock() // the test's own notes
		g.Commands = g.Commands[:0]
		g.Mu.Unlock()
	}
	for i := range 100 {
		run(i)
	}
	before, goroutines := heapInUse(), runtime.NumGoroutine()
	for i := range 1900 {
		run(100 + i)
	}
	waitDropped(t, pod(t, s))
	if grown := heapInUse() - before; grown > 1<<20 {
		t.Errorf("%d bytes more after 1900 execs", grown)
	}
	if n := runtime.NumGoroutine(); n > goroutines+20 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// waitDropped waits until the server has seen the last DisconnectShim.
func waitDropped(t *testing.T, v *vm) {
	t.Helper()
	for range 1 << 20 {
		v.mu.Lock()
		n := len(v.bySeq)
		v.mu.Unlock()
		if n == 0 {
			checkEmpty(t, v)
			return
		}
		runtime.Gosched()
	}
	t.Error("sessions are left")
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes in the second round
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
