package hyperstart_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestErrorRoundTrip sends errors of the guest to the host.
func TestErrorRoundTrip(t *testing.T) {
	notFound := hyperstart.Errorf(hyperstart.ClassNotFound, "no container %s: %w", "c1", fs.ErrNotExist)
	if !errors.Is(notFound, fs.ErrNotExist) {
		t.Errorf("%v does not wrap its cause", notFound)
	}
	missing := &hyperstart.GuestError{Class: hyperstart.ClassInvalidArgument, ExitStatus: 127, Err: errors.New("no such program <x>")}
	for _, tt := range []struct {
		err  error
		want hyperstart.CommandError
	}{
		{notFound, hyperstart.CommandError{Class: hyperstart.ClassNotFound, Message: "no container c1: file does not exist"}},
		{fmt.Errorf("remove: %w", notFound), hyperstart.CommandError{Class: hyperstart.ClassNotFound, Message: "remove: no container c1: file does not exist"}},
		{missing, hyperstart.CommandError{Class: hyperstart.ClassInvalidArgument, Message: "no such program <x>", ExitStatus: 127}},
		{errors.New("plain"), hyperstart.CommandError{Message: "plain"}},
	} {
		tt.want.Code = hyperstart.NewContainer
		got := hyperstart.ParseError(hyperstart.DialectCCv2, hyperstart.NewContainer, hyperstart.EncodeError(tt.err))
		if diff := cmp.Diff(&tt.want, got); diff != "" {
			t.Errorf("%v: %s", tt.err, diff)
		}
	}
}
