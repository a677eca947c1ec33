package guestconn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is the scripted other end of both ports. Its methods are for one
// goroutine; after an error they do nothing.
type guest struct {
	t        testing.TB
	ctl, tty net.Conn
	commands *hyperstart.CtlReader
	input    *hyperstart.TTYReader
	failed   bool
}

// ports returns a guest and the host's ends of its ports. Nothing is buffered
// between them.
func ports(t testing.TB) (g *guest, ctl, tty net.Conn) {
	t.Helper()
	ctl, guestCtl := net.Pipe()
	tty, guestTTY := net.Pipe()
	t.Cleanup(func() { _, _ = guestCtl.Close(), guestTTY.Close() })
	g = &guest{
		t: t, ctl: guestCtl, tty: guestTTY,
		commands: hyperstart.NewCtlReader(guestCtl), input: hyperstart.NewTTYReader(guestTTY),
	}
	return g, ctl, tty
}

func (g *guest) fail(err error) {
	g.t.Helper()
	if err != nil && !g.failed {
		g.failed = true
		g.t.Errorf("guest: %v", err)
	}
}

// say writes a control message.
func (g *guest) say(code hyperstart.Code, payload []byte) {
	g.t.Helper()
	if g.failed {
		return
	}
	_, err := g.ctl.Write(hyperstart.AppendCtl(nil, code, payload))
	g.fail(err)
}

// expect reads a command.
func (g *guest) expect(want hyperstart.Code) []byte {
	g.t.Helper()
	if g.failed {
		return nil
	}
	code, payload, err := g.commands.Read()
	g.fail(err)
	if err == nil && code != want {
		g.failed = true
		g.t.Errorf("guest: got %s, want %s", code, want)
	}
	return bytes.Clone(payload)
}

// expectCall reads a command that is wrapped in CALL, and takes it.
func (g *guest) expectCall(want hyperstart.Code) (ticket uint32, payload []byte) {
	g.t.Helper()
	wrapped := g.expect(hyperstart.Call)
	if g.failed {
		return 0, nil
	}
	ticket, code, payload, err := hyperstart.ParseCall(wrapped)
	g.fail(err)
	if code != want {
		g.failed = true
		g.t.Errorf("guest: got CALL of %s, want %s", code, want)
	}
	g.say(hyperstart.Ack, nil)
	return ticket, payload
}

// handshake is the guest's part of the start.
func (g *guest) handshake(version uint32) {
	g.t.Helper()
	g.say(hyperstart.Ready, nil)
	g.expect(hyperstart.GetVersion)
	g.say(hyperstart.Ack, binary.BigEndian.AppendUint32(nil, version))
}

// versions of guests of each dialect that has one.
var versions = map[hyperstart.Dialect]uint32{
	hyperstart.DialectHyperhq: hyperstart.VersionHyperhq1,
	hyperstart.DialectClearC:  hyperstart.VersionClearC,
	hyperstart.DialectCCv2:    hyperstart.VersionCCv2,
}

// open connects to a guest of a dialect; the test ends the connection.
func open(t testing.TB, dialect hyperstart.Dialect, opts guestconn.Options) (*guestconn.Conn, *guest) {
	t.Helper()
	g, ctl, tty := ports(t)
	if opts.TTY == nil {
		opts.TTY = func(uint64, []byte) error { return nil }
	}
	done := play(func() { g.handshake(versions[dialect]) })
	c, err := guestconn.Open(t.Context(), ctl, tty, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	<-done
	if c.Dialect() != dialect {
		t.Fatalf("dialect %s, want %s", c.Dialect(), dialect)
	}
	return c, g
}

// play runs a part of a script; the channel is closed at its end.
func play(script func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		script()
	}()
	return done
}

// result is what a command returned.
type result struct {
	payload []byte
	err     error
}

// start runs a command in the background.
func start(ctx context.Context, c *guestconn.Conn, code hyperstart.Code, payload []byte) <-chan result {
	results := make(chan result, 1)
	go func() {
		answer, err := c.Command(ctx, code, payload)
		results <- result{answer, err}
	}()
	return results
}
