package proxyv1_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxyv1"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// TestGoneBehindInput: a client that closes its descriptor with more input on its way than its process reads, whatever
// buffers that is in, is noticed: the numbers are free, and the output is dropped.
func TestGoneBehindInput(t *testing.T) {
	const message = 40000
	held := hyperstart.CreditWindow + 1<<20
	for _, messages := range []int{held/message + 3, held/message + 5, 0} { // 0: as many as there is room for
		socket, _, g := startServerWith(t, proxyv1.NewWithGrace(100*time.Millisecond), hyperstart.DialectCCv2, nil)
		c := attached(t, socket)
		base, file := c.allocate(2)
		streams, err := net.FileConn(file) // that can be closed while it is written to
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		c.must(v1.MethodHyper, hyper("newcontainer", `{"id":"c","process":{"stdio":1,"stderr":2}}`))
		enough := messages
		if messages == 0 {
			messages, enough = 1000, held/message+5
		}
		written := make(chan struct{}, messages)
		go func() {
			defer close(written)
			for range messages {
				if _, err := streams.Write(hyperstart.AppendTTY(nil, base, make([]byte, message))); err != nil {
					return
				}
				written <- struct{}{}
			}
		}()
		for range enough {
			<-written
		}
		_ = streams.Close()
		for range written { // until it has ended
		}
		for {
			r := c.ask(v1.MethodHyper, hyper("winsize", `{"seq":1,"row":24,"column":80}`))
			if r.Err() != nil && strings.Contains(r.Err().Error(), "no stream was allocated") {
				break
			}
		}
		g.Output(wiretest.FirstSeq, "dropped")
		g.WaitFor(func() bool { return g.Credits[wiretest.FirstSeq] >= len("dropped") })
	}
}
