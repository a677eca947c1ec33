package guestconn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestGarbageEndsTheConnection: whatever breaks the protocol ends the
// connection with an error that says what the guest did, and fails what waits.
func TestGarbageEndsTheConnection(t *testing.T) {
	ctl := func(code hyperstart.Code, payload string) []byte {
		return hyperstart.AppendCtl(nil, code, []byte(payload))
	}
	header := func(code, length uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, code), length)
	}
	hyperhq, clearC, ccv2 := hyperstart.DialectHyperhq, hyperstart.DialectClearC, hyperstart.DialectCCv2
	tests := []struct {
		name    string
		dialect hyperstart.Dialect
		ctl     []byte
		tty     []byte
		want    string
	}{
		{name: "oversized control message", dialect: ccv2, ctl: header(9, 1<<31), want: "control port: hyperstart: ctl message 9: length above the limit (2147483648 bytes)"},
		{name: "short control message", dialect: ccv2, ctl: header(9, 7), want: "control port: hyperstart: ctl message 9: length below the header length (7 bytes)"},
		{name: "oversized tty message", dialect: ccv2, tty: append(make([]byte, 8), 0xff, 0xff, 0xff, 0xff), want: "tty port: hyperstart: tty message 0: length above the limit (4294967295 bytes)"},
		{name: "short tty message", dialect: ccv2, tty: make([]byte, 12), want: "tty port: hyperstart: tty message 0: length below the header length (0 bytes)"},
		{name: "unknown code", dialect: ccv2, ctl: ctl(999, ""), want: "control port: guest sent CODE(999), which dialect ccv2 does not have"},
		{name: "command to the host", dialect: ccv2, ctl: ctl(hyperstart.StartPod, "{}"), want: "control port: guest sent STARTPOD, which dialect ccv2 does not have"},
		{name: "event of another dialect", dialect: clearC, ctl: ctl(hyperstart.HyperhqProcessAsyncEvent, "{}"), want: "control port: guest sent CODE(23), which dialect clear-c does not have"},
		{name: "call of another dialect", dialect: hyperhq, ctl: ctl(hyperstart.Result, ""), want: "control port: guest sent CODE(65), which dialect hyperhq does not have"},
		{name: "ACK of nothing", dialect: clearC, ctl: ctl(hyperstart.Ack, ""), want: "control port: guest sent a reply to no command"},
		{name: "ERROR of nothing", dialect: clearC, ctl: ctl(hyperstart.Error, ""), want: "control port: guest sent a reply to no command"},
		{name: "RESULT of nothing", dialect: ccv2, ctl: ctl(hyperstart.Result, "\x00\x00\x00\x05\x00\x00\x00\x09"), want: "control port: guest sent a reply to no command"},
		{name: "RESULT that is none", dialect: ccv2, ctl: ctl(hyperstart.Result, "\x00\x00\x00\x05\x00\x00\x00\x08"), want: "control port: guest sent RESULT with code 8"},
		{name: "short RESULT", dialect: ccv2, ctl: ctl(hyperstart.Result, "\x00"), want: "control port: hyperstart: call payload of 1 bytes, at least 8 are needed"},
		{name: "second READY", dialect: ccv2, ctl: ctl(hyperstart.Ready, ""), want: "control port: guest sent READY twice"},
		{name: "NEXT of too much", dialect: hyperhq, ctl: ctl(hyperstart.Next, "\x00\x00\x00\x09"), want: "control port: guest acknowledged 9 bytes of 8 sent"},
		{name: "NEXT without a number", dialect: hyperhq, ctl: ctl(hyperstart.Next, "\x00"), want: "control port: guest sent NEXT with 1 bytes, not 4"},
		{name: "malformed event", dialect: ccv2, ctl: ctl(hyperstart.Event, "{"), want: "control port: guest sent a malformed EVENT: unexpected end of JSON input"},
		{name: "malformed exit", dialect: hyperhq, ctl: ctl(hyperstart.HyperhqProcessAsyncEvent, "x"), want: "control port: guest sent a malformed PROCESSASYNCEVENT: invalid character 'x' looking for beginning of value"},
		{name: "handler refuses", dialect: ccv2, tty: hyperstart.AppendTTY(nil, 666, []byte("x")), want: "tty port: bad number"},
		{name: "message cut short", dialect: ccv2, ctl: header(9, 100)[:6], want: "control port: unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, g := open(t, tt.dialect, guestconn.Options{TTY: func(seq uint64, _ []byte) error {
				if seq == 666 {
					return errors.New("bad number")
				}
				return nil
			}})
			// Short writes: the host may hang up in the middle.
			_, _ = g.ctl.Write(tt.ctl)
			_, _ = g.tty.Write(tt.tty)
			if strings.HasSuffix(tt.want, "EOF") {
				_ = g.ctl.Close()
			}
			<-c.Done()
			if got := c.Err().Error(); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			_, err := c.Command(t.Context(), hyperstart.Ping, nil)
			if want := "send PING: " + tt.want; err == nil || err.Error() != want {
				t.Errorf("command after the end: %v, want %q", err, want)
			}
		})
	}
}

// TestGarbageFailsWaitingCommand: the reason reaches who waits.
func TestGarbageFailsWaitingCommand(t *testing.T) {
	c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
	waiting := start(t.Context(), c, hyperstart.GuestInfo, nil)
	g.expectCall(hyperstart.GuestInfo)
	g.say(hyperstart.Ready, nil)
	const want = "GUESTINFO: control port: guest sent READY twice"
	if r := <-waiting; r.err == nil || r.err.Error() != want {
		t.Errorf("error %v, want %q", r.err, want)
	}
}

// TestFloodIsBounded: what a guest sends without being asked costs time, which
// is the guest's, and no memory.
func TestFloodIsBounded(t *testing.T) {
	var events, messages int
	c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{
		TTY:   func(uint64, []byte) error { messages++; return nil },
		Event: func(hyperstart.EventMessage) { events++ },
	})
	const rounds = 200
	event := bytes.Repeat(hyperstart.AppendCtl(nil, hyperstart.Event, []byte(`{"kind":"oom","container":"x"}`)), 100)
	data := bytes.Repeat(hyperstart.AppendTTY(nil, 7, make([]byte, 30000)), 10)
	flood := func() {
		if _, err := g.ctl.Write(event); err != nil {
			t.Error(err)
		}
		if _, err := g.tty.Write(data); err != nil {
			t.Error(err)
		}
	}
	flood()
	before := heap()
	for range rounds {
		flood()
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes of heap after a flood of %d MB", grown, rounds*(len(event)+len(data))>>20)
	}
	_ = c.Close()
	if events < rounds*100 || messages < rounds*10 {
		t.Errorf("%d events, %d messages", events, messages)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// FuzzHostile feeds both ports with bytes of a guest that may do anything.
// Whatever comes, the connection ends and nothing is left running.
func FuzzHostile(f *testing.F) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectHyperhq, hyperstart.DialectClearGo, hyperstart.DialectCCv2} {
		f.Add(uint8(dialect), hyperstart.AppendCtl(nil, hyperstart.Ready, nil), hyperstart.AppendTTY(nil, 3, []byte("x")))
		f.Add(uint8(dialect), hyperstart.AppendCtl(hyperstart.AppendCtl(nil, hyperstart.Ack, nil), hyperstart.Next, []byte{0, 0, 0, 8}), []byte{0})
		f.Add(uint8(dialect), hyperstart.AppendCtl(nil, hyperstart.Result, hyperstart.AppendCall(nil, 1, hyperstart.Error, []byte("{}"))), []byte(nil))
		f.Add(uint8(dialect), hyperstart.AppendCtl(nil, hyperstart.Event, []byte(`{"kind":"oom"}`)), hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 3, Bytes: 1}))
		f.Add(uint8(dialect), hyperstart.AppendCtl(nil, hyperstart.HyperhqProcessAsyncEvent, []byte(`{"event":"finished"}`)), []byte{0xff})
	}
	f.Fuzz(func(t *testing.T, dialect uint8, ctlBytes, ttyBytes []byte) {
		if dialect == 0 || dialect > uint8(hyperstart.DialectCCv2) {
			return
		}
		g, ctl, tty := ports(t)
		reads := play(func() { _, _ = io.Copy(io.Discard, g.ctl) })
		ready := play(func() { g.say(hyperstart.Ready, nil) })
		c, err := guestconn.Open(t.Context(), ctl, tty, guestconn.Options{
			Dialect: hyperstart.Dialect(dialect),
			TTY:     func(uint64, []byte) error { return nil },
			Exited:  func(hyperstart.AsyncEvent) {},
			Event:   func(hyperstart.EventMessage) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		<-ready
		waiting := start(t.Context(), c, hyperstart.GuestInfo, nil)
		speaks := play(func() { _, _ = g.ctl.Write(ctlBytes); _ = g.ctl.Close() })
		shouts := play(func() { _, _ = g.tty.Write(ttyBytes) })
		<-c.Done() // at the latest when the guest hangs up
		<-waiting
		if err := c.Close(); err != nil || c.Err() == nil {
			t.Errorf("close: %v, %v", err, c.Err())
		}
		<-speaks
		<-shouts
		<-reads
	})
}
