package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // calls that fail are what the tests are about
	goleak.VerifyTestMain(m)
}

// intercept runs a method behind the interceptor.
func intercept(method func() (any, error)) (any, error) {
	s := &Service{}
	return s.UnaryServerInterceptor()(context.Background(), nil, &ttrpc.UnaryServerInfo{FullMethod: "/svc/Create"},
		func(context.Context, func(any) error) (any, error) { return method() })
}

// TestClassesReachTheClient with the text of the error, once.
func TestClassesReachTheClient(t *testing.T) {
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument,
		errdefs.ErrUnavailable, errdefs.ErrNotImplemented, errdefs.ErrResourceExhausted,
		context.DeadlineExceeded, context.Canceled, errdefs.ErrUnknown,
	} {
		cause := fmt.Errorf("create container c: %w: %w", errors.New("no such thing"), class)
		_, err := intercept(func() (any, error) { return nil, cause })
		back := errgrpc.ToNative(err)
		if !errors.Is(back, class) {
			t.Errorf("%v: the client gets %v", class, back)
		}
		if text := back.Error(); strings.Count(text, "no such thing") != 1 || !strings.HasPrefix(text, "create container c: ") {
			t.Errorf("%v: the text is %q", class, text)
		}
	}
	_, err := intercept(func() (any, error) { return nil, errors.New("something else") })
	if back := errgrpc.ToNative(err); !errdefs.IsUnknown(back) {
		t.Errorf("an error without class is %v", back)
	}
}

// TestCallsAreCounted: each but Wait, and the start of an exec process as another one than that of a container.
func TestCallsAreCounted(t *testing.T) {
	s := &Service{counts: new(calls.Counts)}
	for _, c := range []struct {
		method  string
		request string
		err     error
	}{{"Start", "", nil}, {"Start", "exec", errdefs.ErrNotFound}, {"Wait", "", nil}, {"Kill", "exec", nil}} {
		_, err := s.UnaryServerInterceptor()(context.Background(), func(v any) error { v.(*taskapi.StartRequest).ExecID = c.request; return nil },
			&ttrpc.UnaryServerInfo{FullMethod: "/svc/" + c.method},
			func(_ context.Context, unmarshal func(any) error) (any, error) {
				return nil, errors.Join(unmarshal(new(taskapi.StartRequest)), c.err)
			})
		if (err != nil) != (c.err != nil) {
			t.Errorf("%s: %v", c.method, err)
		}
	}
	var got []string
	for _, o := range s.counts.Operations() {
		got = append(got, fmt.Sprint(o.Name, o.Failed))
	}
	if want := "[Killmap[] Startmap[] StartExecmap[not_found:1]]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestTextIsPrintable: it goes to the client's terminal and to the log, and a guest
// may have written a part of it.
func TestTextIsPrintable(t *testing.T) {
	defer log.L.Logger.SetOutput(log.L.Logger.Out)
	var logged strings.Builder
	log.L.Logger.SetOutput(&logged)
	cause := fmt.Errorf("boot sandbox c: last console lines:\n  a\x1b[31m\n  b%s: %w", strings.Repeat("b", 1<<20), errdefs.ErrUnavailable)
	_, err := intercept(func() (any, error) { return nil, cause })
	back := errgrpc.ToNative(err)
	if !errdefs.IsUnavailable(back) {
		t.Errorf("class of %v", err)
	}
	text := back.Error()
	if want := "boot sandbox c: last console lines: | a?[31m | bbb"; !strings.HasPrefix(text, want) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("got %q, want %q and so on", text[:min(len(text), 200)], want)
	}
	if limit := printable.MaxReport + 500; len(text) > limit || logged.Len() > limit {
		t.Errorf("%d bytes for the client, %d for the log", len(text), logged.Len())
	}
}

// TestLevels: what an operator should look at is an error in the log, and a
// container that has ended already is not.
func TestLevels(t *testing.T) {
	defer log.L.Logger.SetOutput(log.L.Logger.Out)
	for class, want := range map[error]string{errdefs.ErrNotFound: "level=info", errdefs.ErrUnavailable: "level=error"} {
		var text strings.Builder
		log.L.Logger.SetOutput(&text)
		_, _ = intercept(func() (any, error) { return nil, class }) // the error is the other test's
		if !strings.Contains(text.String(), want) {
			t.Errorf("%v is logged as %q, want %s", class, text.String(), want)
		}
	}
}

// TestPanicIsAnError of that call, and the shim goes on.
func TestPanicIsAnError(t *testing.T) {
	_, err := intercept(func() (any, error) { panic("oh") })
	if back := errgrpc.ToNative(err); !errdefs.IsInternal(back) || !strings.HasPrefix(back.Error(), "panic: oh") {
		t.Errorf("got %v", back)
	}
	if resp, err := intercept(func() (any, error) { return 7, nil }); resp != 7 || err != nil {
		t.Errorf("got %v, %v", resp, err)
	}
}
