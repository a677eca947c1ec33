package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"golang.org/x/sys/unix"
)

// guest speaks to the host.
type guest struct {
	ctl, tty *port
	provoked func(*guest) // the attack, nil for none
	deaf     bool         // SIGKILL is acknowledged and ends nothing
	version  uint32       // answer to GETVERSION, 0 for the right one
	refusal  []byte       // ERROR in answer to NEWCONTAINER, nil for none

	container string // the last one that was created
	stdio     uint64 // sequence number of its init process
}

// ready says READY.
func (g *guest) ready() { g.say(hyperstart.Ready, nil) }

func (g *guest) say(code hyperstart.Code, payload []byte) {
	g.ctl.send(hyperstart.AppendCtl(nil, code, payload))
}

// serve acknowledges every command, wrapped or not.
func (g *guest) serve() error {
	r := hyperstart.NewCtlReader(bufio.NewReader(g.ctl))
	for {
		code, payload, err := r.Read()
		if err != nil {
			return err
		}
		if code != hyperstart.Call {
			g.say(hyperstart.Ack, g.answer(code))
			continue
		}
		ticket, code, payload, err := hyperstart.ParseCall(payload)
		if err != nil {
			return err
		}
		g.say(hyperstart.Ack, nil)
		if code == hyperstart.NewContainer && g.refusal != nil {
			g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Error, g.refusal))
			continue
		}
		g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, g.answer(code)))
		if err := g.obey(code, payload); err != nil {
			return err
		}
	}
}

func (g *guest) answer(code hyperstart.Code) []byte {
	if code != hyperstart.GetVersion {
		return nil
	}
	if g.version != 0 {
		return binary.BigEndian.AppendUint32(nil, g.version)
	}
	return binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2)
}

// obey looks at commands that were answered.
func (g *guest) obey(code hyperstart.Code, payload []byte) error {
	switch code { //nolint:exhaustive // all others need no more than an answer
	case hyperstart.NewContainer:
		var r hyperstart.NewContainerRequest
		if err := json.Unmarshal(payload, &r); err != nil {
			return err
		}
		g.container, g.stdio = r.ID, r.Process.Stdio
	case hyperstart.KillContainer:
		var r hyperstart.KillContainerRequest
		if err := json.Unmarshal(payload, &r); err != nil {
			return err
		}
		switch r.Signal {
		case int(unix.SIGUSR1):
			if g.provoked != nil {
				go g.provoked(g)
			}
		case int(unix.SIGKILL):
			if !g.deaf {
				g.tty.send(exit(g.stdio, 128+uint8(unix.SIGKILL)))
			}
		}
	}
	return nil
}

// exit is the end of a process.
func exit(seq uint64, status uint8) []byte {
	return hyperstart.AppendTTY(hyperstart.AppendTTY(nil, seq, nil), seq, []byte{status})
}
