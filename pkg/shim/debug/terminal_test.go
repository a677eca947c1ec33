package debug_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
)

// echo is a VM whose console shows what is typed, until its end.
type echo struct {
	*vm

	pieces *history.Log[string]
	done   chan struct{}
}

func (e *echo) Done() <-chan struct{} { return e.done }

func (e *echo) Type(input []byte) error {
	if string(input) == "too much" {
		return errdefs.ErrUnavailable
	}
	e.pieces.Add(string(input))
	return nil
}

func (e *echo) Watch() (pieces *history.Log[string], from uint64, begin string, stop func()) {
	return e.pieces, e.pieces.Count(), "# ", func() {}
}

// attached is a client on a connection of its own.
type attached struct {
	debugapi.Debug_AttachClient

	leave func() error
}

// attach attaches a client; what it is answered first is returned.
func (f *fixture) attach(t *testing.T, by string) (attached, string, error) {
	t.Helper()
	c := ttrpc.NewClient(f.dial(t))
	t.Cleanup(func() { _ = c.Close() })
	stream, err := debugapi.NewDebugClient(c).Attach(t.Context())
	if err == nil {
		err = stream.Send(&debugapi.ConsoleInput{Start: &debugapi.AttachStart{By: by}})
	}
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	return attached{stream, c.Close}, first.GetText(), errgrpc.ToNative(err)
}

// TestAttach: one client types, where the configuration lets it, and sees what the guest says.
func TestAttach(t *testing.T) {
	f := newFixture(t)
	e := &echo{vm: f.machine.report.VM.(*vm), pieces: history.New[string](8), done: make(chan struct{})}
	if _, _, err := f.attach(t, "a"); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "console_input = true in [guest]") {
		t.Errorf("not allowed: %v", err)
	}
	f.machine.edit(func(r *podvm.Report) { r.Config.ConsoleInput = true })
	if _, _, err := f.attach(t, "a"); !errdefs.IsFailedPrecondition(err) { // this kind of VM has none
		t.Errorf("without a terminal: %v", err)
	}
	f.machine.edit(func(r *podvm.Report) { r.VM = e })
	stream, begin, err := f.attach(t, "first\x1b")
	if err != nil || begin != "# " {
		t.Fatalf("got %q, %v", begin, err)
	}
	if _, _, err := f.attach(t, "second"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "first? is attached") {
		t.Errorf("second: %v", err)
	}
	if err := stream.Send(&debugapi.ConsoleInput{Typed: []byte("ls\r")}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetText() != "ls\r" {
		t.Errorf("got %v, %v", m, err)
	}
	if err := stream.leave(); err != nil {
		t.Fatal(err)
	}
	for { // its place is free when the shim has noticed
		if stream, _, err = f.attach(t, "second"); err == nil {
			break
		}
	}
	if err := stream.Send(&debugapi.ConsoleInput{Typed: []byte("too much")}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Errorf("a guest that does not read: %v", err)
	}
	if stream, _, err = f.attach(t, "third"); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&debugapi.ConsoleInput{Typed: make([]byte, 8<<10)}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) {
		t.Errorf("too much at once: %v", err)
	}
	if stream, _, err = f.attach(t, "fourth"); err != nil {
		t.Fatal(err)
	}
	close(e.done)
	if m, err := stream.Recv(); err == nil {
		t.Errorf("after the end of the vm: %v", m)
	}
}
