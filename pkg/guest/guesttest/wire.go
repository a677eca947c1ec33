package guesttest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// Wire is a guest at the other end of a VM's ports. It carries nothing out, and answers every
// command.
type Wire struct {
	Version uint32          // that it says; 0 for that of ccv2's
	Refuse  hyperstart.Code // the call that it answers with an error: "not today"

	mu    sync.Mutex // guards calls
	calls []hyperstart.Code
}

// Calls are those that guests were given since the last time.
func (w *Wire) Calls() []hyperstart.Code {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

// Serve is the guest of a VM until its ports are closed. One that has booted says READY first.
// Without a control port, as nobody asks, it is nothing.
func (w *Wire) Serve(ports map[string]net.Conn, booted bool) {
	ctl := ports[layout.CtlPort]
	if ctl == nil {
		return
	}
	tty := make(chan struct{})
	go func() {
		defer close(tty)
		_, _ = io.Copy(io.Discard, ports[layout.TTYPort])
	}()
	defer func() { <-tty }()
	say := func(code hyperstart.Code, payload []byte) {
		_, _ = ctl.Write(hyperstart.AppendCtl(nil, code, payload))
	}
	if booted {
		say(hyperstart.Ready, nil)
	}
	r := hyperstart.NewCtlReader(ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		switch code { //nolint:exhaustive // the rest is acknowledged
		case hyperstart.GetVersion:
			version := w.Version
			if version == 0 {
				version = hyperstart.VersionCCv2
			}
			say(hyperstart.Ack, binary.BigEndian.AppendUint32(nil, version))
		case hyperstart.Call:
			say(hyperstart.Ack, nil)
			say(hyperstart.Result, w.answer(payload))
		default:
			say(hyperstart.Ack, nil)
		}
	}
}

// answer is the result of a call.
func (w *Wire) answer(call []byte) []byte {
	ticket, code, _, _ := hyperstart.ParseCall(call)
	w.mu.Lock()
	w.calls = append(w.calls, code)
	w.mu.Unlock()
	if code == w.Refuse {
		return hyperstart.AppendCall(nil, ticket, hyperstart.Error, []byte(`{"message":"not today"}`))
	}
	return hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil)
}
