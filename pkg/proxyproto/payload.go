package proxyproto

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The JSON payloads. Unknown keys are ignored on read, as the original does.

// RegisterVM is the payload of CmdRegisterVM. The connection that sends it is
// attached to the VM.
type RegisterVM struct {
	ContainerID  string `json:"containerId"`            // id of the VM
	CtlSerial    string `json:"ctlSerial"`              // path of the socket of the control channel
	IOSerial     string `json:"ioSerial"`               // path of the socket of the tty channel
	Console      string `json:"console,omitempty"`      // path of the socket of the console
	NumIOStreams int    `json:"numIOStreams,omitempty"` // tokens to hand out at once
}

// Validate returns an error that names all required keys that are missing.
func (r RegisterVM) Validate() error {
	var missing []string
	for _, key := range []struct{ name, value string }{
		{"containerId", r.ContainerID}, {"ctlSerial", r.CtlSerial}, {"ioSerial", r.IOSerial},
	} {
		if key.value == "" {
			missing = append(missing, key.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("malformed RegisterVM command: missing %s", strings.Join(missing, ", "))
	}
	return nil
}

// RegisterVMResponse answers RegisterVM.
type RegisterVMResponse struct {
	IO IOResponse `json:"io"`
}

// IOResponse says where shims connect, and with which tokens.
type IOResponse struct {
	// URL is the proxy's own address, "unix://" and an absolute path. The key
	// is in upper case on the wire, whatever the original's documents say.
	URL string `json:"URL"`
	// Tokens is null on the wire when none were asked for.
	Tokens []string `json:"tokens"`
}

// AttachVM is the payload of CmdAttachVM: it attaches the connection to a VM
// that is registered.
type AttachVM struct {
	ContainerID  string `json:"containerId"`
	NumIOStreams int    `json:"numIOStreams,omitempty"` // tokens to hand out
}

// AttachVMResponse answers AttachVM.
type AttachVMResponse struct {
	IO IOResponse `json:"io"`
}

// UnregisterVM is the payload of CmdUnregisterVM.
type UnregisterVM struct {
	ContainerID string `json:"containerId"`
}

// Hyper is the payload of CmdHyper, one command for the guest.
type Hyper struct {
	HyperName string `json:"hyperName"` // lower case, such as "startpod"
	// Tokens has the token of the new process: at most one, and only with
	// newcontainer and execcmd. nil is null on the wire.
	Tokens []string `json:"tokens"`
	// Data is the payload of the guest's command.
	Data json.RawMessage `json:"data,omitempty"`
	// Activity is the id of what it is a part of, for logs; with Verbose the guest logs its part
	// also when it has succeeded. Other proxies ignore both.
	Activity string `json:"activity,omitempty"`
	Verbose  bool   `json:"verbose,omitempty"`
}

// ConnectShim is the payload of CmdConnectShim: it makes the connection the
// one that carries the streams of a session.
type ConnectShim struct {
	Token string `json:"token"`
}

// ErrorResponse is the payload of a response with the error flag.
type ErrorResponse struct {
	Msg string `json:"msg"`
	// Class and ExitStatus are ccv2's additions, as in [RemoteError]. They are
	// omitted when empty, and original clients ignore them.
	Class      string `json:"class,omitempty"`
	ExitStatus uint8  `json:"exitStatus,omitempty"`
}

// RemoteError is the failure of a command on the other side. A server that
// gives one to [Writer.WriteError] passes its class on.
type RemoteError struct {
	Command Command
	Msg     string
	// Class names the kind of the error, "" where the peer does not say.
	Class string
	// ExitStatus is the status that a shell would report for a process that
	// could not be started, 0 for other errors.
	ExitStatus uint8
}

// Error returns the command and the text of the peer.
func (e *RemoteError) Error() string {
	msg := e.Msg
	if msg == "" {
		msg = "the proxy gave no reason"
	}
	return fmt.Sprintf("proxy: %s: %s", e.Command, msg)
}

// Err returns a [*RemoteError] when f is an error response, else nil. A payload
// that is not JSON is taken as text.
func (f Frame) Err() error {
	if !f.Error || f.Type != TypeResponse {
		return nil
	}
	e := &RemoteError{Command: f.Command()}
	var r ErrorResponse
	if err := json.Unmarshal(f.Payload, &r); err != nil {
		r = ErrorResponse{Msg: string(f.Payload)}
	}
	if len(r.Msg) > maxErrorText {
		r.Msg = r.Msg[:maxErrorText]
	}
	e.Msg, e.Class, e.ExitStatus = strings.ToValidUTF8(r.Msg, "\uFFFD"), r.Class, r.ExitStatus
	return e
}

// Decode decodes the JSON payload of f into v. An empty payload is an error.
func (f Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("decode %s: %w", f.Header, err)
	}
	return nil
}

// ParseProcessExited returns the exit status in the payload of
// NotifyProcessExited, which is exactly one raw byte.
func ParseProcessExited(payload []byte) (status uint8, err error) {
	if len(payload) != 1 {
		return 0, fmt.Errorf("decode %s: payload of %d bytes, want 1", NotifyProcessExited, len(payload))
	}
	return payload[0], nil
}
