package guestconn_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestReattach(t *testing.T) {
	g, ctl, tty := ports(t)
	done := play(func() { // no READY: it was said to an earlier connection
		g.expect(hyperstart.Ping)
		g.say(hyperstart.Ack, nil)
		g.expect(hyperstart.GetVersion)
		g.say(hyperstart.Ack, binary.BigEndian.AppendUint32(nil, hyperstart.VersionHyperhq1))
	})
	c, err := guestconn.Open(t.Context(), ctl, tty, guestconn.Options{Reattach: true, TTY: func(uint64, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	// What the guest consumed for the earlier connection is not known here.
	g.say(hyperstart.Next, binary.BigEndian.AppendUint32(nil, 1<<20))
	g.say(hyperstart.Ready, nil)
	<-c.Done()
	if got, want := c.Err().Error(), "control port: guest sent READY twice"; got != want {
		t.Errorf("error %q, want %q: the guest has booted again", got, want)
	}
	_ = c.Close()
}

func TestDialectIsNotAskedForWhenGiven(t *testing.T) {
	g, ctl, tty := ports(t)
	done := play(func() {
		g.say(hyperstart.Ready, nil)
		g.expect(hyperstart.Ping)
		g.say(hyperstart.Ack, nil)
	})
	c, err := guestconn.Open(t.Context(), ctl, tty, guestconn.Options{Dialect: hyperstart.DialectClearC, TTY: func(uint64, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Command(t.Context(), hyperstart.Ping, nil); err != nil {
		t.Error(err)
	}
	<-done
}

func TestHandshakeFails(t *testing.T) {
	tests := []struct {
		name  string
		guest func(*guest)
		want  string
	}{
		{
			name:  "closed before ready",
			guest: func(g *guest) { _ = g.ctl.Close() },
			want:  "wait for guest: control port: EOF",
		},
		{
			name: "never ready",
			want: "wait for guest: context deadline exceeded",
		},
		{
			name:  "no answer",
			guest: func(g *guest) { g.say(hyperstart.Ready, nil); g.expect(hyperstart.GetVersion) },
			want:  "ask guest for its version: GETVERSION: no answer from the guest: context deadline exceeded",
		},
		{
			name: "short answer",
			guest: func(g *guest) {
				g.say(hyperstart.Ready, nil)
				g.expect(hyperstart.GetVersion)
				g.say(hyperstart.Ack, []byte{1, 2})
			},
			want: "ask guest for its version: answer of 2 bytes, not 4",
		},
		{
			name:  "version from the future",
			guest: func(g *guest) { g.handshake(hyperstart.VersionCCv2 + 1) },
			want:  "hyperstart: guest speaks version 2000002, this host knows up to 2000001; use a guest image of the same release",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, ctl, tty := ports(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if tt.guest != nil {
					defer func(done <-chan struct{}) { <-done }(play(func() { tt.guest(g) }))
				}
				_, err := guestconn.Open(ctx, ctl, tty, guestconn.Options{TTY: func(uint64, []byte) error { return nil }})
				if err == nil || err.Error() != tt.want {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				if _, err := tty.Write([]byte{0}); err == nil {
					t.Error("the ports are still open")
				}
			})
		})
	}
}

// TestAbandonedCommandKeepsItsTurn: the reply to a command that nobody waits
// for any more is that command's, not the next one's.
func TestAbandonedCommandKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, hyperstart.DialectHyperhq, guestconn.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := start(ctx, c, hyperstart.StartPod, []byte("{}"))
		g.expect(hyperstart.StartPod)
		if r := <-first; !errors.Is(r.err, context.DeadlineExceeded) {
			t.Fatalf("error %v", r.err)
		}
		second := start(t.Context(), c, hyperstart.Ping, nil)
		third, cancelThird := context.WithCancel(t.Context())
		never := start(third, c, hyperstart.DestroyPod, nil)
		synctest.Wait() // both wait for the port
		cancelThird()
		if r := <-never; r.err == nil || r.err.Error() != "send DESTROYPOD: context canceled" {
			t.Errorf("error %v", r.err)
		}
		g.say(hyperstart.Error, nil) // to STARTPOD
		g.expect(hyperstart.Ping)
		g.say(hyperstart.Ack, []byte("pong"))
		if r := <-second; r.err != nil || string(r.payload) != "pong" {
			t.Errorf("got %q, %v", r.payload, r.err)
		}
	})
}

// TestGuestThatDoesNotRead: a command ends with its context even while its
// message cannot be written.
func TestGuestThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, hyperstart.DialectClearC, guestconn.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Command(ctx, hyperstart.Ping, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		// A guest that answers what it has not read does not get the next one.
		g.say(hyperstart.Ack, nil)
		next := start(t.Context(), c, hyperstart.DestroyPod, nil)
		synctest.Wait()
		g.expect(hyperstart.Ping)
		g.expect(hyperstart.DestroyPod)
		g.say(hyperstart.Ack, nil)
		if r := <-next; r.err != nil {
			t.Error(r.err)
		}
	})
}

// TestCallsRunSideBySide: the results come in any order, and each is its own
// command's.
func TestCallsRunSideBySide(t *testing.T) {
	const n = 20
	c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
	done := play(func() {
		tickets := make(map[uint32][]byte)
		for range n {
			ticket, payload := g.expectCall(hyperstart.ReadFile)
			tickets[ticket] = payload
		}
		for ticket, payload := range tickets { // in no particular order
			code := hyperstart.Ack
			if payload[0]%2 == 1 {
				code, payload = hyperstart.Error, fmt.Appendf(nil, `{"class":"not_found","message":"%d"}`, payload[0])
			}
			g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, code, payload))
		}
	})
	var wg sync.WaitGroup
	for i := range byte(n) {
		wg.Go(func() {
			payload, err := c.Command(t.Context(), hyperstart.ReadFile, []byte{i})
			if i%2 == 0 {
				if err != nil || len(payload) != 1 || payload[0] != i {
					t.Errorf("command %d: %v, %v", i, payload, err)
				}
				return
			}
			want := &hyperstart.CommandError{Code: hyperstart.ReadFile, Class: hyperstart.ClassNotFound, Message: fmt.Sprint(i)}
			var got *hyperstart.CommandError
			if !errors.As(err, &got) || !cmp.Equal(got, want) {
				t.Errorf("command %d: error %v, want %v", i, err, want)
			}
		})
	}
	wg.Wait()
	<-done
}

// TestAbandonedCalls: calls that were never sent, that were refused, and whose
// result comes late, leave nothing behind: each kind is made more often than
// calls may be under way.
func TestAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 300
		c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		first := start(t.Context(), c, hyperstart.GuestInfo, nil)
		synctest.Wait() // it has the port, so the others are not sent
		for range many {
			if _, err := c.Command(ended, hyperstart.Ping, nil); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		ticket, _ := g.expectCall(hyperstart.GuestInfo)
		g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
		if r := <-first; r.err != nil {
			t.Fatal(r.err)
		}
		for range many {
			refused := start(t.Context(), c, hyperstart.Ping, nil)
			g.expect(hyperstart.Call)
			g.say(hyperstart.Error, []byte("no calls today"))
			if r := <-refused; r.err == nil || r.err.Error() != "guest: PING: no calls today" {
				t.Fatalf("error %v", r.err)
			}
		}
		for range many {
			ctx, cancel := context.WithCancel(t.Context())
			late := start(ctx, c, hyperstart.Ping, nil)
			ticket, _ := g.expectCall(hyperstart.Ping)
			cancel()
			if r := <-late; !errors.Is(r.err, context.Canceled) {
				t.Fatalf("error %v", r.err)
			}
			g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
		}
	})
}

// TestPendingCommandsFailOnClose: whatever they wait for.
func TestPendingCommandsFailOnClose(t *testing.T) {
	for dialect := range versions {
		t.Run(dialect.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, g := open(t, dialect, guestconn.Options{})
				var all []<-chan result
				for range 3 {
					all = append(all, start(t.Context(), c, hyperstart.Ping, nil))
				}
				g.commands.Read() //nolint:errcheck // one of them is with the guest
				synctest.Wait()
				_ = c.Close()
				for _, r := range all {
					if r := <-r; !errors.Is(r.err, guestconn.ErrClosed) {
						t.Errorf("error %v, want %v", r.err, guestconn.ErrClosed)
					}
				}
				for _, err := range []error{
					c.WriteTTY(3, nil),
					c.Grant(hyperstart.Credit{Seq: 3, Bytes: 1}),
					(<-start(t.Context(), c, hyperstart.Ping, nil)).err,
					c.Err(),
				} {
					if !errors.Is(err, guestconn.ErrClosed) {
						t.Errorf("after Close: %v", err)
					}
				}
			})
		})
	}
}

func TestTooManyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
		const limit = 256
		for range limit {
			start(t.Context(), c, hyperstart.DumpStacks, nil)
			g.expectCall(hyperstart.DumpStacks)
		}
		synctest.Wait()
		_, err := c.Command(t.Context(), hyperstart.Ping, nil)
		if err == nil || err.Error() != "send PING: the guest has not answered 256 earlier commands" {
			t.Errorf("error %v", err)
		}
		if _, err := c.Command(t.Context(), hyperstart.Ping, make([]byte, hyperstart.MaxCtlPayload)); err == nil {
			t.Error("a payload above the limit was accepted")
		}
	})
}

// TestAbandonedCallsAreFree: commands whose callers have gone do not count, also
// if the guest never answers them. Their late results are dropped; those of
// calls that were answered or never made are not.
func TestAbandonedCallsAreFree(t *testing.T) {
	for name, last := range map[string]func(tickets []uint32) uint32{
		"answered twice": func(tickets []uint32) uint32 { return tickets[0] },
		"never made":     func(tickets []uint32) uint32 { return tickets[len(tickets)-1] + 100 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many = 300
				c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
				var tickets []uint32
				for range many {
					ctx, cancel := context.WithCancel(t.Context())
					silent := start(ctx, c, hyperstart.DumpStacks, nil)
					ticket, _ := g.expectCall(hyperstart.DumpStacks)
					tickets = append(tickets, ticket)
					synctest.Wait()
					cancel()
					if r := <-silent; !errors.Is(r.err, context.Canceled) {
						t.Fatalf("error %v", r.err)
					}
				}
				for _, ticket := range tickets {
					g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
				}
				alive := start(t.Context(), c, hyperstart.Ping, nil)
				ticket, _ := g.expectCall(hyperstart.Ping)
				g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
				if r := <-alive; r.err != nil {
					t.Fatal(r.err)
				}
				g.say(hyperstart.Result, hyperstart.AppendCall(nil, last(tickets), hyperstart.Ack, nil))
				<-c.Done()
				if got, want := c.Err().Error(), "control port: guest sent a reply to no command"; got != want {
					t.Errorf("error %q, want %q", got, want)
				}
			})
		})
	}
}

// TestManyAbandonedCalls: what a guest never answers takes bounded memory.
func TestManyAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
		first := uint32(0)
		for range guestconn.MaxAbandoned + 10 {
			ctx, cancel := context.WithCancel(t.Context())
			silent := start(ctx, c, hyperstart.DumpStacks, nil)
			ticket, _ := g.expectCall(hyperstart.DumpStacks)
			synctest.Wait()
			cancel()
			<-silent
			if first == 0 {
				first = ticket
			}
		}
		if n := c.Abandoned(); n > guestconn.MaxAbandoned {
			t.Errorf("%d tickets are kept", n)
		}
		g.say(hyperstart.Result, hyperstart.AppendCall(nil, first, hyperstart.Ack, nil))
		alive := start(t.Context(), c, hyperstart.Ping, nil)
		ticket, _ := g.expectCall(hyperstart.Ping)
		g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
		if r := <-alive; r.err != nil {
			t.Error(r.err)
		}
	})
}
