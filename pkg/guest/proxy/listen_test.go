package proxy

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// brokenListener has no descriptors left for some time.
type brokenListener struct {
	failures int
	conns    chan net.Conn
	closed   chan struct{}
	close    func()
}

func newBrokenListener(failures int) *brokenListener {
	l := &brokenListener{failures: failures, conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, unix.EMFILE
	}
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *brokenListener) Close() error   { l.close(); return nil }
func (l *brokenListener) Addr() net.Addr { return &net.UnixAddr{} }

// TestListenSurvivesErrors: what cannot be accepted now is accepted later.
func TestListenSurvivesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
		l := newBrokenListener(20)
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- s.Listen(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		newPeer(t, ours).must(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod"})
		if took := time.Since(begin); took < 5*time.Second || took > 20*time.Second {
			t.Errorf("20 errors took %s", took)
		}
		_ = s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestListenEndsWhileItWaits for the next attempt.
func TestListenEndsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Options{})
		done := make(chan error, 1)
		go func() { done <- s.Listen(newBrokenListener(1 << 30)) }()
		time.AfterFunc(time.Minute, func() { _ = s.Close() })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
