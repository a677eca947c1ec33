package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// atBoot are the attacks of a guest that never gets as far as a container.
var atBoot = map[string]func(*guest){
	"garbage": func(g *guest) {
		flood(g.ctl.send, bytes.Repeat([]byte{0xa5}, 64<<10))
	},
	// NEXT is the only message that is not an offence before READY.
	"never-ready": func(g *guest) {
		flood(g.ctl.send, bytes.Repeat(hyperstart.AppendCtl(nil, hyperstart.Next, make([]byte, 4)), 4<<10))
	},
	"huge-length":  func(g *guest) { g.ctl.send(header(hyperstart.Ready, math.MaxUint32)) },
	"short-length": func(g *guest) { g.ctl.send(header(hyperstart.Ready, 4)) },
	"unknown-code": func(g *guest) { g.say(999, nil) },
	"unasked-ack":  func(g *guest) { g.say(hyperstart.Ack, nil) },
	"ready-twice": func(g *guest) {
		g.ready()
		g.ready()
	},
	"rude-error": func(g *guest) {
		g.refusal = bytes.Repeat([]byte("\x1b]0;rude\x07\x1b[2J\r\n"), 64<<10)
		g.ready()
	},
	"wrong-version": func(g *guest) {
		g.version = hyperstart.VersionCCv2 + 98
		g.ready()
	},
}

// whenProvoked are the attacks of a guest that has a container.
var whenProvoked = map[string]func(*guest){
	"unknown-stream": func(g *guest) {
		const never = 1 << 40
		flood(g.tty.send, hyperstart.AppendTTY(nil, never, make([]byte, hyperstart.MaxTTYPayload)))
	},
	"beyond-credit": func(g *guest) {
		flood(g.tty.send, hyperstart.AppendTTY(nil, g.stdio, make([]byte, hyperstart.MaxTTYPayload)))
	},
	"huge-output": func(g *guest) {
		g.tty.send(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, g.stdio), math.MaxUint32))
	},
	"unasked-result": func(g *guest) {
		const noTicket = math.MaxUint32
		g.say(hyperstart.Result, hyperstart.AppendCall(nil, noTicket, hyperstart.Ack, nil))
	},
	"malformed-event": func(g *guest) { g.say(hyperstart.Event, []byte(`{"kind":`)) },
	"output-after-end": func(g *guest) {
		g.tty.send(hyperstart.AppendTTY(exit(g.stdio, 7), g.stdio, []byte("one more thing\n")))
	},
	"event-flood": func(g *guest) {
		small := event(hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: g.container})
		large := event(hyperstart.EventMessage{
			Kind: hyperstart.EventOOM, Container: g.container,
			Process: string(bytes.Repeat([]byte{'x'}, hyperstart.MaxCtlPayload-100)), // the rest is for the other keys
		})
		flood(g.ctl.send, append(bytes.Repeat(small, 4<<10), large...))
	},
	"credit-flood": func(g *guest) {
		most := hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: g.stdio, Bytes: math.MaxUint32})
		flood(g.tty.send, bytes.Repeat(most, 4<<10))
	},
}

// deaf are the modes in which nothing but the end of the VM helps.
var deaf = map[string]bool{"event-flood": true}

// flood sends messages without end.
func flood(send func([]byte), messages []byte) {
	for {
		send(messages)
	}
}

// header is that of a control message without the rest.
func header(code hyperstart.Code, length uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(code)), length)
}

func event(e hyperstart.EventMessage) []byte {
	payload, err := json.Marshal(e)
	if err != nil {
		panic(err) // a struct of strings
	}
	return hyperstart.AppendCtl(nil, hyperstart.Event, payload)
}
