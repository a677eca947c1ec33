package guestconn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/trace"
)

// TestReplay plays recorded sessions with the original agents: the guest says
// what it said then and holds the host to what the host said then, byte for
// byte and in the order of the recording.
func TestReplay(t *testing.T) {
	tests := []struct {
		name     string
		dialect  hyperstart.Dialect
		commands int
		refused  int
		exits    []int // on the control port
	}{
		{name: "hyperhq", dialect: hyperstart.DialectHyperhq, commands: 31, refused: 11, exits: []int{7, 3, 0, 0, 0, 127, 0, 1}},
		{name: "clear-go", dialect: hyperstart.DialectClearGo, commands: 24, refused: 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := trace.Read("../hyperstart/testdata/" + tt.name + ".hex")
			if err != nil {
				t.Fatal(err)
			}
			r := &replay{t: t, lines: lines}
			c, g := r.open()
			if c.Dialect() != tt.dialect {
				t.Errorf("dialect %s, want %s", c.Dialect(), tt.dialect)
			}
			commands, refused := r.drive(c)
			if commands != tt.commands || refused != tt.refused {
				t.Errorf("%d commands, %d refused; want %d, %d", commands, refused, tt.commands, tt.refused)
			}
			<-r.played // the guest has said all
			_, _ = g.ctl.Close(), g.tty.Close()
			<-c.Done()
			_ = c.Close()
			if diff := cmp.Diff(r.want(), r.got); diff != "" {
				t.Errorf("tty messages (-recorded +delivered):\n%s", diff)
			}
			if diff := cmp.Diff(tt.exits, r.exits); diff != "" {
				t.Errorf("exits on the control port (-want +got):\n%s", diff)
			}
		})
	}
}

// message is one tty message.
type message struct {
	Seq     uint64
	Payload string
}

// replay is one recorded session.
type replay struct {
	t      *testing.T
	lines  []trace.Line
	got    []message // the tty reader's own until the Conn has ended
	exits  []int     // the control reader's own until the Conn has ended
	played <-chan struct{}
}

func (r *replay) open() (*guestconn.Conn, *guest) {
	r.t.Helper()
	g, ctl, tty := ports(r.t)
	r.played = play(func() { r.guest(g) })
	c, err := guestconn.Open(r.t.Context(), ctl, tty, guestconn.Options{
		TTY: func(seq uint64, payload []byte) error {
			r.got = append(r.got, message{seq, string(payload)})
			return nil
		},
		Exited: func(e hyperstart.AsyncEvent) { r.exits = append(r.exits, e.Status) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return c, g
}

// guest plays the recorded guest.
func (r *replay) guest(g *guest) {
	for i, line := range r.lines {
		port := g.ctl
		if line.Channel == trace.TTY {
			port = g.tty
		}
		if line.In {
			if _, err := port.Write(line.Raw); err != nil {
				r.t.Errorf("line %d: say: %v", i, err)
				return
			}
			continue
		}
		var got []byte
		if line.Channel == trace.TTY {
			seq, payload, err := g.input.Read()
			g.fail(err)
			got = hyperstart.AppendTTY(nil, seq, payload)
		} else {
			code, payload, err := g.commands.Read()
			g.fail(err)
			got = hyperstart.AppendCtl(nil, code, payload)
		}
		if g.failed {
			return
		}
		if !bytes.Equal(got, line.Raw) {
			r.t.Errorf("line %d: host wrote %x, recorded %x", i, got, line.Raw)
		}
	}
}

// drive does what the recorded host did after the handshake and checks each reply.
func (r *replay) drive(c *guestconn.Conn) (commands, refused int) {
	r.t.Helper()
	for i, line := range r.lines {
		if line.In {
			continue
		}
		if line.Channel == trace.TTY {
			seq, payload, err := line.ParseTTY()
			if err == nil {
				err = c.WriteTTY(seq, payload)
			}
			if err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		code, payload, err := line.ParseCtl()
		if err != nil {
			r.t.Fatal(err)
		}
		if code == hyperstart.GetVersion {
			continue // the handshake's
		}
		commands++
		answer, err := c.Command(r.t.Context(), code, payload)
		if wantCode, want := r.reply(i); wantCode == hyperstart.Error {
			refused++
			var got *hyperstart.CommandError
			if !errors.As(err, &got) || got.Code != code || got.Message != string(bytes.TrimRight(want, "\x00")) {
				r.t.Errorf("line %d: error %v, recorded %q", i, err, want)
			}
		} else if err != nil || !bytes.Equal(answer, want) {
			r.t.Errorf("line %d: answer %q, %v; recorded %q", i, answer, err, want)
		}
	}
	return commands, refused
}

// reply is the recorded reply to the command in line i.
func (r *replay) reply(i int) (hyperstart.Code, []byte) {
	r.t.Helper()
	for _, line := range r.lines[i:] {
		if !line.In || line.Channel == trace.TTY {
			continue
		}
		code, payload, err := line.ParseCtl()
		if err != nil {
			r.t.Fatal(err)
		}
		if code == hyperstart.Ack || code == hyperstart.Error {
			return code, bytes.Clone(payload)
		}
	}
	r.t.Fatalf("line %d has no reply", i)
	return 0, nil
}

// want is all that the recorded guest said on the tty port.
func (r *replay) want() []message {
	r.t.Helper()
	var all []message
	for _, line := range r.lines {
		if line.In && line.Channel == trace.TTY {
			seq, payload, err := line.ParseTTY()
			if err != nil {
				r.t.Fatal(err)
			}
			all = append(all, message{seq, string(payload)})
		}
	}
	return all
}

// TestReplayNext: every NEXT of the recording is accounted for. One byte more
// than was ever sent ends the connection, so the sum is exact.
func TestReplayNext(t *testing.T) {
	lines, err := trace.Read("../hyperstart/testdata/hyperhq.hex")
	if err != nil {
		t.Fatal(err)
	}
	r := &replay{t: t, lines: lines}
	c, g := r.open()
	r.drive(c)
	<-r.played
	g.say(hyperstart.Next, binary.BigEndian.AppendUint32(nil, 0))
	select {
	case <-c.Done():
		t.Fatalf("ended by a NEXT of 0: %v", c.Err())
	default:
	}
	g.say(hyperstart.Next, binary.BigEndian.AppendUint32(nil, 1))
	<-c.Done()
	if got := c.Err().Error(); got != "control port: guest acknowledged 3135 bytes of 3134 sent" {
		t.Errorf("error %q", got)
	}
	_ = c.Close()
}
