package hyperstart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Payloads and errors of the ccv2 dialect.

// ShareMount is where the agent mounts the shared file system in the guest.
const ShareMount = "/run/ccv2/shared"

// ShmMount is where the agent mounts the pod's shared memory in the guest.
const ShmMount = "/run/ccv2/shm"

// InitProcess is the process id of a container's first process.
const InitProcess = "init"

// ErrorClass names the kind of an error, so that it survives the guest boundary.
type ErrorClass string

// The classes. The zero class is an error of no particular kind.
const (
	ClassUnknown            ErrorClass = ""
	ClassInvalidArgument    ErrorClass = "invalid_argument"
	ClassNotFound           ErrorClass = "not_found"
	ClassAlreadyExists      ErrorClass = "already_exists"
	ClassFailedPrecondition ErrorClass = "failed_precondition"
	ClassUnavailable        ErrorClass = "unavailable"
	ClassNotImplemented     ErrorClass = "not_implemented"
	ClassResourceExhausted  ErrorClass = "resource_exhausted"
)

// ErrorReply is the payload of ERROR in the ccv2 dialect.
type ErrorReply struct {
	Class   ErrorClass `json:"class,omitempty"`
	Message string     `json:"message"`
	// ExitStatus is the status that a shell would report for a process that
	// could not be started: 127 when its binary is missing, 126 when it cannot
	// be executed; 0 otherwise.
	ExitStatus uint8 `json:"exitStatus,omitempty"`
}

// CommandError is the guest's ERROR reply to a command.
type CommandError struct {
	Code       Code // the command that failed
	Class      ErrorClass
	Message    string // "" where the dialect sends none
	ExitStatus uint8
}

// Error returns the command and the guest's reason.
func (e *CommandError) Error() string {
	msg := e.Message
	if msg == "" {
		msg = "the guest gave no reason"
	}
	return fmt.Sprintf("guest: %s: %s", e.Code, msg)
}

// maxErrorText bounds the text of an error from the guest in bytes: enough for
// a sentence and the paths in it; more is noise in a log.
const maxErrorText = 4096

// ParseError makes a [*CommandError] from the payload of an ERROR reply. The C
// agents send none or text that ends with NUL, the Go agents text or JSON.
//
// The guest is not trusted: the message is valid UTF-8 of at most 4096 bytes,
// whatever was sent, and the class is one of this package's.
func ParseError(d Dialect, code Code, payload []byte) *CommandError {
	e := &CommandError{Code: code}
	if d == DialectCCv2 {
		var reply ErrorReply
		if json.Unmarshal(payload, &reply) == nil && reply.Message != "" {
			e.Class, e.ExitStatus = reply.Class.known(), reply.ExitStatus
			e.Message = errorText(reply.Message)
			return e
		}
	}
	payload = payload[:min(len(payload), maxErrorText+utf8.UTFMax)] // errorText does the exact cut
	e.Message = errorText(string(bytes.TrimRight(payload, "\x00")))
	return e
}

// errorText makes text from the guest fit for a log and for a gRPC status,
// which cannot carry invalid UTF-8.
func errorText(s string) string {
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "")
	}
	return strings.ToValidUTF8(s, "?")
}

// known returns c, or ClassUnknown when c is not one of the classes.
func (c ErrorClass) known() ErrorClass {
	switch c {
	case ClassUnknown, ClassInvalidArgument, ClassNotFound, ClassAlreadyExists, ClassFailedPrecondition,
		ClassUnavailable, ClassNotImplemented, ClassResourceExhausted:
		return c
	}
	return ClassUnknown
}

// EventKind is the kind of an [EventMessage].
type EventKind string

// Events of the guest.
const (
	// EventOOM says that the kernel killed a process of the container because
	// its memory limit was reached. It precedes the exit of the process.
	EventOOM EventKind = "oom"
	// EventExited says that a process has ended whose output the host does not
	// take, or whose streams descendants keep open. The end comes on the tty port as well, behind the output.
	EventExited EventKind = "exited"
)

// EventMessage is the payload of EVENT.
type EventMessage struct {
	Kind      EventKind `json:"kind"`
	Container string    `json:"container,omitempty"`
	// Process and Status are those of EventExited.
	Process string `json:"process,omitempty"`
	Status  uint8  `json:"status,omitempty"`
}

// UpdateContainerRequest is the payload of UPDATECONTAINER.
type UpdateContainerRequest struct {
	Container string `json:"container"`
	// Resources is LinuxResources of the OCI runtime specification.
	Resources json.RawMessage `json:"resources"`
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID int `json:"pid"` // in the guest's root pid namespace
	// Process is the id that the process was created with; "" for descendants.
	Process string `json:"process,omitempty"`
}

// ProcessList is the answer to LISTPROCESSES.
type ProcessList struct {
	Processes []ProcessInfo `json:"processes"`
}

// Stats is the answer to STATSCONTAINER: the files of the container's cgroup.
// Limits are 0 when there is none ("max").
type Stats struct {
	CPU           map[string]uint64 `json:"cpu"`    // cpu.stat, times in microseconds
	Memory        map[string]uint64 `json:"memory"` // memory.stat, bytes and counts
	MemoryCurrent uint64            `json:"memoryCurrent"`
	MemoryMax     uint64            `json:"memoryMax"`
	MemoryPeak    uint64            `json:"memoryPeak"`
	SwapCurrent   uint64            `json:"swapCurrent"`
	SwapMax       uint64            `json:"swapMax"`
	MemoryEvents  map[string]uint64 `json:"memoryEvents"` // memory.events
	PIDsCurrent   uint64            `json:"pidsCurrent"`
	PIDsMax       uint64            `json:"pidsMax"`
	IO            []IOStats         `json:"io,omitempty"` // io.stat
}

// IOStats is one line of io.stat.
type IOStats struct {
	Major  uint64 `json:"major"`
	Minor  uint64 `json:"minor"`
	RBytes uint64 `json:"rbytes"`
	WBytes uint64 `json:"wbytes"`
	RIOs   uint64 `json:"rios"`
	WIOs   uint64 `json:"wios"`
}

// GuestInfoReply is the answer to GUESTINFO.
type GuestInfoReply struct {
	Kernel       string `json:"kernel"`       // release, as uname -r prints it
	AgentVersion string `json:"agentVersion"` // of the agent binary
	AgentRSS     uint64 `json:"agentRSS"`     // bytes
	MemTotal     uint64 `json:"memTotal"`     // bytes
	MemAvailable uint64 `json:"memAvailable"` // bytes
	// BootMillis is the guest's uptime when the agent was ready.
	BootMillis int64 `json:"bootMillis"`
}
