package client

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Classify gives an error of the proxy or the guest its errdefs class.
func Classify(err error) error {
	var remote *proxyproto.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	class := classes[hyperstart.ErrorClass(remote.Class)]
	if class == nil {
		return err
	}
	return &classifiedError{error: err, class: class}
}

// classifiedError has a class that its text does not mention.
type classifiedError struct {
	error
	class error
}

func (e *classifiedError) Unwrap() []error { return []error{e.error, e.class} }

// classes has no entry for what is not known, which is also what a newer guest may say.
var classes = map[hyperstart.ErrorClass]error{
	hyperstart.ClassInvalidArgument:    errdefs.ErrInvalidArgument,
	hyperstart.ClassNotFound:           errdefs.ErrNotFound,
	hyperstart.ClassAlreadyExists:      errdefs.ErrAlreadyExists,
	hyperstart.ClassFailedPrecondition: errdefs.ErrFailedPrecondition,
	hyperstart.ClassUnavailable:        errdefs.ErrUnavailable,
	hyperstart.ClassNotImplemented:     errdefs.ErrNotImplemented,
	hyperstart.ClassResourceExhausted:  errdefs.ErrResourceExhausted,
}

// ExitStatus is the exit status that a shell would report for a process that
// could not be started; ok is false when the guest does not say.
func ExitStatus(err error) (status uint8, ok bool) {
	var remote *proxyproto.RemoteError
	if errors.As(err, &remote) && remote.ExitStatus != 0 {
		return remote.ExitStatus, true
	}
	if program, ok := errors.AsType[*programError](err); ok {
		return program.status, true
	}
	return 0, false
}

type programError struct {
	error
	status uint8
}

// CannotRun is the error of a program that cannot be run: its [ExitStatus], and why.
func CannotRun(status uint8, why error) error {
	return &classifiedError{error: &programError{error: why, status: status}, class: errdefs.ErrInvalidArgument}
}
