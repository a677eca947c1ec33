package wiretap

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// hidden stands for what is left out.
const hidden = "…"

// Redact returns a message without what is nobody's business who looks for a fault: what
// processes read and write, their arguments and environment, the contents of files, random numbers, tokens, options of
// mounts and texts of errors and logs. Of what
// cannot be read, such as a message of which only MaxRaw is kept, the header is left. The lengths in the headers are those of what is left.
func Redact(m Message) []byte {
	switch m.Layer {
	case Ctl:
		return redactCtl(m.Raw)
	case TTY:
		seq, payload, err := hyperstart.NewTTYReader(bytes.NewReader(m.Raw)).Read()
		if err != nil && len(m.Raw) < hyperstart.TTYHeaderLen {
			return nil
		}
		if err != nil {
			return hyperstart.AppendTTY(nil, binary.BigEndian.Uint64(m.Raw), nil)
		}
		if seq != hyperstart.CreditSeq {
			payload = nil
		}
		return hyperstart.AppendTTY(nil, seq, payload)
	case Frame:
		return redactFrame(m.Raw)
	}
	return nil
}

func redactFrame(raw []byte) []byte {
	f, err := proxyproto.NewReader(bytes.NewReader(raw)).ReadFrame()
	switch {
	case err != nil && len(raw) < proxyproto.HeaderLen:
		return nil
	case err != nil:
		f.Header = proxyproto.Header{Type: proxyproto.Type(raw[typeAt] & typeMask), Opcode: raw[opcodeAt]}
		f.Payload = nil
	case f.Type == proxyproto.TypeStream:
		f.Payload = nil
	case f.Type == proxyproto.TypeCommand || f.Type == proxyproto.TypeResponse:
		f.Payload = redactJSON(f.Payload)
	} // a notification has an exit status
	redacted, err := proxyproto.AppendFrame(nil, f)
	if err != nil {
		return nil
	}
	return redacted
}

func redactCtl(raw []byte) []byte {
	code, payload, err := hyperstart.NewCtlReader(bytes.NewReader(raw)).Read()
	if err != nil {
		if len(raw) < hyperstart.CtlHeaderLen {
			return nil
		}
		code, payload = hyperstart.Code(binary.BigEndian.Uint32(raw)), raw[hyperstart.CtlHeaderLen:]
	}
	if code == hyperstart.Call || code == hyperstart.Result {
		ticket, inner, rest, err := hyperstart.ParseCall(payload)
		if err != nil {
			return hyperstart.AppendCtl(nil, code, nil)
		}
		return hyperstart.AppendCtl(nil, code, hyperstart.AppendCall(nil, ticket, inner, redactJSON(rest)))
	}
	if code == hyperstart.Next && err == nil {
		return raw
	}
	return hyperstart.AppendCtl(nil, code, redactJSON(payload))
}

// redactJSON returns JSON with its secrets left out, and nothing of what is no JSON.
func redactJSON(payload []byte) []byte {
	if len(payload) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return nil
	}
	b, err := proxyproto.Marshal(redactValue(v))
	if err != nil {
		return nil
	}
	return b
}

// secret are the keys whose values are left out.
var secret = []string{
	"entropy", "message", "value", "annotations", "rootpath", "cmdline", "commandline", "bytes", "content",
	"token", "tokens", // who has one has the streams of its process
	"options",              // of mounts, which may have passwords
	"error", "text", "msg", // of programs, which quote what they were given
}

func redactValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			switch name := strings.ToLower(key); {
			case name == "env" || name == "envs":
				v[key] = redactEnv(value)
			case name == "args" || name == "cmd":
				v[key] = redactArgs(value)
			case slices.Contains(secret, name) && value != nil:
				v[key] = hidden
			default:
				v[key] = redactValue(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = redactValue(v[i])
		}
	}
	return v
}

// redactEnv keeps the names, in either form: NAME=VALUE, or objects with both.
func redactEnv(v any) any {
	list, ok := v.([]any)
	if !ok {
		if _, isText := v.(string); isText {
			return v // a name: "env" of an object with a value
		}
		return hidden
	}
	for i := range list {
		if text, ok := list[i].(string); ok {
			name, _, _ := strings.Cut(text, "=")
			list[i] = name + "=" + hidden
			continue
		}
		list[i] = redactValue(list[i])
	}
	return list
}

// redactArgs keeps the name of the program.
func redactArgs(v any) any {
	list, ok := v.([]any)
	if !ok {
		return hidden
	}
	if len(list) > 1 {
		return []any{list[0], fmt.Sprintf("%s (%d more)", hidden, len(list)-1)}
	}
	return list
}
