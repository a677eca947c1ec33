package wiretap

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Layer is where a message was seen.
type Layer uint8

// Layers.
const (
	Ctl   Layer = iota // control port of the guest
	TTY                // its tty port
	Frame              // a connection of the proxy
)

func (l Layer) String() string {
	if names := []string{"ctl", "tty", "frame"}; int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("layer(%d)", uint8(l))
}

// Message is one message as it was on the wire.
type Message struct {
	Time   int64 // nanoseconds since 1970
	Layer  Layer
	ToHost bool   // from the guest, or from the proxy to its client
	Conn   uint32 // number of a frame's connection; 0 for the ports
	Size   int    // in bytes, with its header
	Raw    []byte // header and payload; of a large message as much as fits MaxRaw
}

// MaxRaw is how much of a message is kept, in bytes.
const MaxRaw = 256 << 10

// Kinds of messages, each with a place among the counters.
const (
	ctlCodes     = 96       // codes below have a place of their own
	ctlOther     = ctlCodes // the others have one together
	ttyData      = ctlOther + 1
	ttyCredit    = ttyData + 1
	frames       = ttyCredit + 1
	frameTypes   = 4
	frameOpcodes = 8 // more than any type has
	kinds        = frames + frameTypes*frameOpcodes
)

// counter counts messages of one kind in one direction.
type counter struct{ messages, bytes atomic.Uint64 }

// Tap stands where messages pass. Its zero value is ready; it is safe for concurrent use.
type Tap struct {
	toGuest, toHost [kinds]counter
	conns           atomic.Uint32

	watches atomic.Pointer[[]*Watch] // nil while nobody watches
	mu      sync.Mutex               // held to change watches
}

// NewConn numbers a connection of frames.
func (t *Tap) NewConn() uint32 {
	if t == nil {
		return 0
	}
	return t.conns.Add(1)
}

// Ctl sees a message of the control port.
func (t *Tap) Ctl(toHost bool, code hyperstart.Code, payload []byte) {
	if t == nil {
		return
	}
	t.count(toHost, kindOfCtl(code, payload), hyperstart.CtlHeaderLen+len(payload))
	if watches := t.watches.Load(); watches != nil {
		pass(*watches, Message{Layer: Ctl, ToHost: toHost, Raw: hyperstart.AppendCtl(nil, code, payload)})
	}
}

// kindOfCtl is the kind of a control message. One that is wrapped counts as what it has in it.
func kindOfCtl(code hyperstart.Code, payload []byte) int {
	if code == hyperstart.Call {
		if _, inner, _, err := hyperstart.ParseCall(payload); err == nil {
			code = inner
		}
	}
	if code < ctlCodes {
		return int(code)
	}
	return ctlOther
}

// TTY sees a message of the tty port.
func (t *Tap) TTY(toHost bool, seq uint64, payload []byte) {
	if t == nil {
		return
	}
	kind := ttyData
	if seq == hyperstart.CreditSeq {
		kind = ttyCredit
	}
	t.count(toHost, kind, hyperstart.TTYHeaderLen+len(payload))
	if watches := t.watches.Load(); watches != nil {
		pass(*watches, Message{Layer: TTY, ToHost: toHost, Raw: hyperstart.AppendTTY(nil, seq, payload)})
	}
}

// Frame sees a frame that was read from a client's connection.
func (t *Tap) Frame(conn uint32, f proxyproto.Frame) {
	if t == nil {
		return
	}
	t.count(false, kindOfFrame(f.Type, f.Opcode), proxyproto.HeaderLen+len(f.Payload))
	if watches := t.watches.Load(); watches != nil {
		if raw, err := proxyproto.AppendFrame(nil, f); err == nil {
			pass(*watches, Message{Layer: Frame, Conn: conn, Raw: raw})
		}
	}
}

// Where a frame's header has its type and its opcode.
const (
	typeAt, opcodeAt = 6, 7
	typeMask         = 0x0f
)

// RawFrame sees a frame that is written to a client's connection.
func (t *Tap) RawFrame(conn uint32, raw []byte) {
	if t == nil || len(raw) < proxyproto.HeaderLen {
		return
	}
	t.count(true, kindOfFrame(proxyproto.Type(raw[typeAt]&typeMask), raw[opcodeAt]), len(raw))
	if watches := t.watches.Load(); watches != nil {
		pass(*watches, Message{Layer: Frame, ToHost: true, Conn: conn, Raw: slices.Clone(raw)})
	}
}

// kindOfFrame is the kind of a frame that a codec has accepted.
func kindOfFrame(t proxyproto.Type, opcode uint8) int {
	return frames + int(t)%frameTypes*frameOpcodes + int(opcode)%frameOpcodes
}

func (t *Tap) count(toHost bool, kind, size int) {
	c := &t.toGuest[kind]
	if toHost {
		c = &t.toHost[kind]
	}
	c.messages.Add(1)
	c.bytes.Add(uint64(size))
}

// Count is how many messages of a kind have passed, headers included.
type Count struct {
	Layer    Layer
	ToHost   bool
	Kind     string
	Messages uint64
	Bytes    uint64
}

// Counts are the counters that are not zero.
func (t *Tap) Counts() (all []Count) {
	if t == nil {
		return nil
	}
	for kind := range kinds {
		layer, name := describe(kind)
		for _, toHost := range []bool{false, true} {
			c := &t.toGuest[kind]
			if toHost {
				c = &t.toHost[kind]
			}
			if n := c.messages.Load(); n > 0 {
				all = append(all, Count{Layer: layer, ToHost: toHost, Kind: name, Messages: n, Bytes: c.bytes.Load()})
			}
		}
	}
	return all
}

// describe names a kind.
func describe(kind int) (Layer, string) {
	switch {
	case kind < ctlCodes:
		return Ctl, hyperstart.Code(kind).String()
	case kind == ctlOther:
		return Ctl, "other"
	case kind == ttyData:
		return TTY, "data"
	case kind == ttyCredit:
		return TTY, "credit"
	}
	h := proxyproto.Header{Type: proxyproto.Type((kind - frames) / frameOpcodes), Opcode: uint8((kind - frames) % frameOpcodes)}
	return Frame, h.String()
}

// pass gives a message to all who watch.
func pass(watches []*Watch, m Message) {
	m.Time, m.Size = time.Now().UnixNano(), len(m.Raw)
	if len(m.Raw) > MaxRaw {
		m.Raw = bytes.Clone(m.Raw[:MaxRaw])
	}
	for _, w := range watches {
		w.add(m)
	}
}
