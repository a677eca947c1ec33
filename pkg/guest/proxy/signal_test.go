package proxy

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

func TestSignalIsRefused(t *testing.T) {
	s, _ := newServer(t, hyperstart.DialectClearGo, Options{})
	runtime, shim, _ := started(t, s)
	if _, got := runtime.ask(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 15}); got != "client isn't a shim" {
		t.Errorf("by a runtime: %q", got)
	}
	for _, tt := range []struct {
		signal proxyproto.Signal
		want   string
	}{
		{proxyproto.Signal{SignalNumber: 64}, "invalid signal number 64"},
		{proxyproto.Signal{SignalNumber: 31}, "invalid signal number 31"},
		{proxyproto.Signal{SignalNumber: -1}, "invalid signal number -1"},
		{proxyproto.Signal{SignalNumber: 28}, "received SIGWINCH but terminal size is invalid (0,0)"},
		{proxyproto.Signal{SignalNumber: 28, Rows: 70000, Columns: 1}, "received SIGWINCH but terminal size is invalid (1,70000)"},
		{proxyproto.Signal{SignalNumber: 1, Rows: 3, Columns: 3}, "received a terminal size (3,3) for signal hangup"},
	} {
		if _, got := shim.ask(proxyproto.CmdSignal, tt.signal); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.signal, got, tt.want)
		}
	}
}

// TestSignalForms: what the guest of each dialect gets.
func TestSignalForms(t *testing.T) {
	const winch, term = int(syscall.SIGWINCH), int(syscall.SIGTERM)
	const execRefused = "Could not send the signal terminated: Sending a signal to a process different from the initial container process is not supported"
	killByContainer := `{"container":"c","signal":15,"allProcesses":false}`
	bySeq := `{"seq":3,"row":40,"column":100}`
	for _, tt := range []struct {
		dialect hyperstart.Dialect
		exec    bool
		signal  int
		code    hyperstart.Code
		want    string // payload, or the error when code is 0
	}{
		{hyperstart.DialectClearC, false, winch, hyperstart.WinSize, bySeq},
		{hyperstart.DialectClearGo, true, winch, hyperstart.WinSize, bySeq},
		{hyperstart.DialectCCv2, true, winch, hyperstart.WinSize, bySeq},
		{hyperstart.DialectHyperhq, false, winch, hyperstart.WinSize, `{"container":"c","process":"p","row":40,"column":100}`},
		{hyperstart.DialectClearGo, false, term, hyperstart.KillContainer, killByContainer},
		{hyperstart.DialectCCv2, false, term, hyperstart.KillContainer, killByContainer},
		{hyperstart.DialectClearC, true, term, 0, execRefused},
		{hyperstart.DialectClearGo, true, term, 0, execRefused},
		{hyperstart.DialectHyperhq, true, term, hyperstart.HyperhqSignalProcess, `{"container":"c","process":"p","signal":15}`},
		{hyperstart.DialectCCv2, true, term, hyperstart.SignalProcess, `{"container":"c","process":"p","signal":15}`},
	} {
		s, g := newServer(t, tt.dialect, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		shim := shimPeer(t, s, token)
		if tt.exec {
			runtime.must(proxyproto.CmdHyper, hyper("execcmd", token, `{"container":"c","process":{"id":"p"}}`))
		} else {
			runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, `{"id":"c","process":{"id":"p"}}`))
		}
		sig := proxyproto.Signal{SignalNumber: tt.signal}
		if tt.signal == winch {
			sig.Rows, sig.Columns = 40, 100
		}
		_, failure := shim.ask(proxyproto.CmdSignal, sig)
		if tt.code == 0 {
			if failure != tt.want {
				t.Errorf("%+v: error %q", tt, failure)
			}
			continue
		}
		if got := g.WaitCommand(tt.code, 1); got != tt.want || failure != "" {
			t.Errorf("%+v: guest got %s, error %q", tt, got, failure)
		}
	}
}

// TestProcessWithoutID: an original client gives none, and its process can be signalled, where the guest can.
func TestProcessWithoutID(t *testing.T) {
	for dialect, id := range map[hyperstart.Dialect]string{
		hyperstart.DialectHyperhq: `"id":"3",`, hyperstart.DialectCCv2: `"id":"3",`, hyperstart.DialectClearC: "", hyperstart.DialectClearGo: "",
	} {
		s, g := newServer(t, dialect, Options{})
		runtime := runtimePeer(t, s)
		token := runtime.token()
		shim := shimPeer(t, s, token)
		runtime.must(proxyproto.CmdHyper, hyper("execcmd", token, `{"container":"c","process":{"args":["sh"]}}`))
		if got := g.WaitCommand(hyperstart.ExecCmd, 1); got != `{"container":"c","process":{"args":["sh"],`+id+`"stderr":4,"stdio":3}}` {
			t.Errorf("%s: the guest got %s", dialect, got)
		}
		if _, failure := shim.ask(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 15}); (failure == "") != (id != "") {
			t.Errorf("%s: %q", dialect, failure)
		}
		if code, ok := dialect.CodeOf("signalprocess"); ok {
			if got := g.WaitCommand(code, 1); got != `{"container":"c","process":"3","signal":15}` {
				t.Errorf("%s: the guest got %s", dialect, got)
			}
		}
	}
}

// TestEarlySignals: KILL and TERM before the start are an exit, announced
// before the response; others wait for the start.
func TestEarlySignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newServer(t, hyperstart.DialectClearGo, Options{})
		runtime := runtimePeer(t, s)
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			shim := shimPeer(t, s, runtime.token())
			shim.send(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: int(signal)})
			shim.expect("notification ProcessExited 000")
			shim.expect("response Signal")
		}
		token := runtime.token()
		shim := shimPeer(t, s, token)
		begin := time.Now()
		if _, got := shim.ask(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10}); got != "timeout waiting for process with token "+token {
			t.Errorf("error %q", got)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("after %s, want 30 s", took)
		}
		shim.send(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10})
		synctest.Wait()
		if n := len(g.Commands); n != 0 {
			t.Errorf("%d commands before the start", n)
		}
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		if _, failure := shim.response(proxyproto.CmdSignal); failure != "" {
			t.Errorf("after the start: %s", failure)
		}
		if got := g.WaitCommand(hyperstart.KillContainer, 1); got != `{"container":"c","signal":10,"allProcesses":false}` {
			t.Errorf("the guest got %s", got)
		}
	})
}

// TestLastSignalBehindUnreadAnswers: what a dead shim has not read, answers and output, keeps its last signal
// from nothing.
func TestLastSignalBehindUnreadAnswers(t *testing.T) {
	s, g := newServer(t, hyperstart.DialectClearGo, Options{})
	runtime := runtimePeer(t, s)
	for n := range 50 {
		token := runtime.token()
		ours, theirs := socketPair(t)
		w := proxyproto.NewWriter(ours)
		if err := w.WriteCommand(proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token}); err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(theirs)
		}()
		if f, err := proxyproto.NewReader(ours).ReadFrame(); err != nil || f.Error {
			t.Fatalf("%s, %v", f, err)
		}
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", token, newProcess))
		pod := pod(t, s)
		session, err := pod.find(token)
		if err != nil {
			t.Fatal(err)
		}
		// The reader is held while the client says its last and goes, and output that cannot be
		// written comes before it looks.
		session.mu.Lock()
		for _, sig := range []int{1, 9} {
			if err := w.WriteCommand(proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: sig}); err != nil {
				t.Fatal(err)
			}
		}
		_ = ours.Close()
		session.out.queue.Push(proxyproto.StreamStdout, []byte("unread"))
		session.out.bytes += len("unread")
		session.cond.Broadcast()
		session.mu.Unlock()
		<-served
		g.WaitCommand(hyperstart.KillContainer, 2*(n+1))
	}
}
