package v1

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Version is what hello and attach answer.
const Version = 1

// Method is the name of a request.
type Method string

// The methods. The empty Method is invalid.
const (
	MethodHello      Method = "hello"      // [Hello], answered by [HelloResult]
	MethodAttach     Method = "attach"     // [Attach], answered by [HelloResult]
	MethodBye        Method = "bye"        // [Bye], answered without data
	MethodAllocateIO Method = "allocateIO" // [AllocateIO], answered by [AllocateIOResult] and a file
	MethodHyper      Method = "hyper"      // [Hyper], answered without data
)

// String returns the method as it is on the wire.
func (m Method) String() string { return string(m) }

// Request is a message from a client.
type Request struct {
	ID   Method          `json:"id"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Validate refuses a request that has no name or an unknown one, with the
// original proxy's wording.
func (r Request) Validate() error {
	switch r.ID {
	case MethodHello, MethodAttach, MethodBye, MethodAllocateIO, MethodHyper:
		return nil
	case "":
		return errors.New("no 'id' field in request")
	}
	return fmt.Errorf("no payload named '%s'", string(r.ID))
}

// Decode decodes the request's data into v. Absent data is an error.
func (r Request) Decode(v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fmt.Errorf("decode %s request: %w", r.ID, err)
	}
	return nil
}

// Response is the answer to a request.
type Response struct {
	Success bool            `json:"success"`
	Error   string          `json:"error,omitempty"` // why Success is false
	Data    json.RawMessage `json:"data,omitempty"`
}

// RemoteError is the failure of a request on the other side.
type RemoteError struct {
	Msg string // "" where the peer gave no reason
}

// Error returns the text of the peer.
func (e *RemoteError) Error() string {
	if e.Msg == "" {
		return "proxy: the proxy gave no reason"
	}
	return "proxy: " + e.Msg
}

// Err returns a [*RemoteError] when the request failed, else nil.
func (r Response) Err() error {
	if r.Success {
		return nil
	}
	return &RemoteError{Msg: r.Error}
}

// Decode decodes the response's data into v. Absent data is an error.
func (r Response) Decode(v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fmt.Errorf("decode response: %w", err)
	}
	return nil
}

// Hello is the data of MethodHello.
type Hello struct {
	ContainerID string `json:"containerId"`       // id of the VM
	CtlSerial   string `json:"ctlSerial"`         // path of the socket of the control channel
	IOSerial    string `json:"ioSerial"`          // path of the socket of the tty channel
	Console     string `json:"console,omitempty"` // path of the socket of the console
}

// HelloResult answers MethodHello and MethodAttach.
type HelloResult struct {
	Version int `json:"version"`
}

// Attach is the data of MethodAttach.
type Attach struct {
	ContainerID string `json:"containerId"`
}

// Bye is the data of MethodBye.
type Bye struct {
	ContainerID string `json:"containerId"`
}

// AllocateIO is the data of MethodAllocateIO.
type AllocateIO struct {
	// NStreams is 1 where standard error goes with standard output, else 2.
	NStreams int `json:"nStreams"`
}

// Validate refuses every number of streams but 1 and 2, with the original proxy's wording.
func (a AllocateIO) Validate() error {
	if a.NStreams < 1 || a.NStreams > 2 {
		return fmt.Errorf("asking for unexpected number of streams (%d)", a.NStreams)
	}
	return nil
}

// AllocateIOResult answers MethodAllocateIO; a file follows, see [ReceiveFile].
type AllocateIOResult struct {
	// IOBase is the first of the consecutive sequence numbers, at least 1.
	IOBase uint64 `json:"ioBase"`
}

// Hyper is the data of MethodHyper, one command for the guest.
type Hyper struct {
	HyperName string          `json:"hyperName"`      // lower case, such as "startpod"
	Data      json.RawMessage `json:"data,omitempty"` // payload of the guest's command
}
