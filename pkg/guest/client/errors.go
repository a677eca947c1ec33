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
	class := classOf(hyperstart.ErrorClass(remote.Class))
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

func classOf(class hyperstart.ErrorClass) error {
	switch class {
	case hyperstart.ClassInvalidArgument:
		return errdefs.ErrInvalidArgument
	case hyperstart.ClassNotFound:
		return errdefs.ErrNotFound
	case hyperstart.ClassAlreadyExists:
		return errdefs.ErrAlreadyExists
	case hyperstart.ClassFailedPrecondition:
		return errdefs.ErrFailedPrecondition
	case hyperstart.ClassUnavailable:
		return errdefs.ErrUnavailable
	case hyperstart.ClassNotImplemented:
		return errdefs.ErrNotImplemented
	case hyperstart.ClassResourceExhausted:
		return errdefs.ErrResourceExhausted
	case hyperstart.ClassUnknown:
	}
	return nil // also what a newer guest may say
}

// ExitStatus is the exit status that a shell would report for a process that
// could not be started; ok is false when the guest does not say.
func ExitStatus(err error) (status uint8, ok bool) {
	var remote *proxyproto.RemoteError
	if errors.As(err, &remote) && remote.ExitStatus != 0 {
		return remote.ExitStatus, true
	}
	return 0, false
}
