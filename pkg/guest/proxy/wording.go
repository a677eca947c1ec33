package proxy

import (
	"encoding/json"
	"errors"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// failure makes the error response of a failed command: what is said depends on who listens.
type failure func(proxyproto.Command, error) error

// Errors about a token do not have it, for they are logged. The original's texts do, which are
// for clients alone.
var errUnknownToken, errTokenClaimed = errors.New("unknown token"), errors.New("token already claimed")

// worded is an error for which the original has other words.
type worded struct {
	error
	original string
}

// Unwrap returns the error in this project's words.
func (e worded) Unwrap() error { return e.error }

// ownFailure has this project's words and the class of a guest's error.
func ownFailure(cmd proxyproto.Command, err error) error {
	var refused *hyperstart.CommandError
	if !errors.As(err, &refused) {
		return err
	}
	return &proxyproto.RemoteError{
		Command: cmd, Msg: err.Error(),
		Class: string(refused.Class), ExitStatus: refused.ExitStatus,
	}
}

// originalFailure has the original's words, and nothing beside them.
func originalFailure(cmd proxyproto.Command, err error) error {
	return &proxyproto.RemoteError{Command: cmd, Msg: Original(err)}
}

// Original returns the text that the original proxy has for an error, and the error's own
// where it has none.
func Original(err error) string {
	var other worded
	var refused *hyperstart.CommandError
	var remote *proxyproto.RemoteError
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other):
		return other.original
	case errors.As(err, &refused):
		return "ERROR received from VM agent, control msg received : " + refused.Message
	case errors.As(err, &remote):
		return remote.Msg
	case errors.As(err, &syntax):
		return syntax.Error()
	case errors.As(err, &mismatch):
		return mismatch.Error()
	}
	return err.Error()
}
