package agent

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// commandError is an error whose class crosses the guest boundary.
type commandError struct {
	class hyperstart.ErrorClass
	exit  uint8 // what a shell would report; 0 when no process was to be started
	err   error
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

// failf makes an error of a class.
func failf(class hyperstart.ErrorClass, format string, args ...any) error {
	return &commandError{class: class, err: fmt.Errorf(format, args...)}
}

// errorPayload is the payload of the ERROR message for err.
func errorPayload(err error) []byte {
	reply := hyperstart.ErrorReply{Message: err.Error()}
	if ce, ok := errors.AsType[*commandError](err); ok {
		reply.Class, reply.ExitStatus = ce.class, ce.exit
	}
	b, err := json.Marshal(reply)
	if err != nil {
		return []byte(reply.Message)
	}
	return b
}

// decode parses a payload. Unknown keys are ignored, so that a newer host can
// add some.
func decode[T any](payload []byte) (T, error) {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, failf(hyperstart.ClassInvalidArgument, "decode payload: %w", err)
	}
	return v, nil
}
