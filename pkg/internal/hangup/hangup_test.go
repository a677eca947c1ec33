package hangup_test

import (
	"net"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hangup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/socketpair"
)

func TestWatch(t *testing.T) {
	a, b, err := socketpair.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	ctx, stop := hangup.Watch(t.Context(), a)
	stop()
	if ctx.Err() == nil || hangup.Has(a) {
		t.Error("stopped: it goes on, or has hung up")
	}
	ctx, stop = hangup.Watch(t.Context(), a)
	defer stop()
	if err := b.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil || hangup.Has(a) {
		t.Error("who closes the sending side alone has hung up")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if !hangup.Has(a) {
		t.Error("it has not hung up")
	}
}
