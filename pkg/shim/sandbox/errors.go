package sandbox

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// fromGuest gives an error of the proxy or the guest its class.
func fromGuest(err error) error {
	var remote *proxyproto.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	class := classOf(hyperstart.ErrorClass(remote.Class))
	if class == nil {
		return err
	}
	return &classified{error: err, class: class}
}

// classified gives an error a class without a word about it in the text.
type classified struct {
	error
	class error
}

func (e *classified) Unwrap() []error { return []error{e.error, e.class} }

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

// exitStatusOf is the status of a process that could not be started: what a
// shell would report, 255 when the guest does not say.
func exitStatusOf(err error) uint32 {
	var remote *proxyproto.RemoteError
	if errors.As(err, &remote) && remote.ExitStatus != 0 {
		return uint32(remote.ExitStatus)
	}
	return statusUnknown
}
