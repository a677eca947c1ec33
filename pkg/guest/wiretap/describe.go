package wiretap

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Description is a message for people.
type Description struct {
	Kind string // such as "CALL EXECCMD", or "stream stdout"
	ID   string // ticket, sequence number or connection, by which others belong to it
	Text string // of the payload, one printable line; "" when it is binary, or was left out
}

// Describe decodes a message, also a part of one.
func Describe(m Message) Description {
	d := describeRaw(m)
	if missing := m.Size - len(m.Raw); missing > 0 && (d.Text == "" || len(m.Raw) == 0) {
		d.Text = fmt.Sprintf("not shown: %d bytes", missing)
	}
	return d
}

func describeRaw(m Message) Description {
	switch m.Layer {
	case Ctl:
		return describeCtl(m.Raw)
	case TTY:
		return describeTTY(m.Raw)
	case Frame:
		d := Description{ID: fmt.Sprintf("connection %d", m.Conn)}
		f, err := proxyproto.NewReader(bytes.NewReader(m.Raw)).ReadFrame()
		if err != nil && f.Type == 0 && len(f.Payload) == 0 {
			return Description{Kind: "unreadable", ID: d.ID, Text: printable.Line(err.Error(), printable.MaxText)}
		}
		d.Kind, d.Text = f.Header.String(), text(f.Payload)
		return d
	}
	return Description{Kind: "unreadable", Text: "layer " + m.Layer.String()}
}

func describeCtl(raw []byte) Description {
	code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(raw)).Read()
	if err != nil {
		return Description{Kind: "unreadable", Text: printable.Line(err.Error(), printable.MaxText)}
	}
	if code == hyperstart.Call || code == hyperstart.Result {
		if ticket, inner, rest, err := hyperstart.ParseCall(payload); err == nil {
			return Description{Kind: code.String() + " " + inner.String(), ID: fmt.Sprintf("ticket %d", ticket), Text: text(rest)}
		}
	}
	return Description{Kind: code.String(), Text: text(payload)}
}

func describeTTY(raw []byte) Description {
	seq, payload, err := hyperstart.NewTTYReader(bytes.NewReader(raw)).Read()
	if err != nil {
		return Description{Kind: "unreadable", Text: printable.Line(err.Error(), printable.MaxText)}
	}
	if seq != hyperstart.CreditSeq {
		return Description{Kind: "data", ID: fmt.Sprintf("stream %d", seq), Text: text(payload)}
	}
	var credits []string
	err = hyperstart.ParseCredits(payload, func(c hyperstart.Credit) {
		credits = append(credits, fmt.Sprintf("stream %d: %d bytes", c.Seq, c.Bytes))
	})
	if err != nil {
		credits = append(credits, err.Error())
	}
	return Description{Kind: "credit", Text: strings.Join(credits, ", ")}
}

// text is a payload as one line that a terminal can show.
func text(payload []byte) string { return printable.Line(string(payload), printable.MaxText) }
