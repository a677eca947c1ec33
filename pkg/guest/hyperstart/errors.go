package hyperstart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

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

// known returns c, or ClassUnknown when c is not one of the classes.
func (c ErrorClass) known() ErrorClass {
	switch c {
	case ClassUnknown, ClassInvalidArgument, ClassNotFound, ClassAlreadyExists, ClassFailedPrecondition,
		ClassUnavailable, ClassNotImplemented, ClassResourceExhausted:
		return c
	}
	return ClassUnknown
}

// ErrorReply is the payload of ERROR in the ccv2 dialect.
type ErrorReply struct {
	Class   ErrorClass `json:"class,omitempty"`
	Message string     `json:"message"`
	// ExitStatus is the status that a shell would report for a process that
	// could not be started: 127 when its binary is missing, 126 when it cannot
	// be executed; 0 otherwise.
	ExitStatus uint8 `json:"exitStatus,omitempty"`
}

// GuestError is an error in the guest whose class crosses to the host, where it
// becomes a [*CommandError].
type GuestError struct {
	Class      ErrorClass
	ExitStatus uint8 // as in [ErrorReply]
	Err        error
}

// Errorf returns a [*GuestError] of a class; the rest is as in [fmt.Errorf].
func Errorf(class ErrorClass, format string, args ...any) error {
	return &GuestError{Class: class, Err: fmt.Errorf(format, args...)}
}

// Error returns the text of the error without its class.
func (e *GuestError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *GuestError) Unwrap() error { return e.Err }

// EncodeError returns the payload of ERROR in the ccv2 dialect. The class is that
// of the first [*GuestError] in err's tree.
func EncodeError(err error) []byte {
	reply := ErrorReply{Message: err.Error()}
	if e, ok := errors.AsType[*GuestError](err); ok {
		reply.Class, reply.ExitStatus = e.Class, e.ExitStatus
	}
	b, err := json.Marshal(reply)
	if err != nil {
		return []byte(reply.Message)
	}
	return b
}

// Decode parses the JSON payload of a command in the guest. Unknown keys are
// ignored, so that a newer host can add some.
func Decode[T any](payload []byte) (T, error) {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, Errorf(ClassInvalidArgument, "decode payload: %w", err)
	}
	return v, nil
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
