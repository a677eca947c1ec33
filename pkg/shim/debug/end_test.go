package debug_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// TestShutdown lets containers end, the sandbox's own last.
func TestShutdown(t *testing.T) {
	f := newFixture(t)
	f.start(t, "pod", "wait")
	f.start(t, "other", "wait")
	if _, err := f.End(t.Context(), &debugapi.EndRequest{Graceful: true, Timeout: time.Minute.Nanoseconds(), By: "me"}); err != nil {
		t.Fatal(err)
	}
	stream, err := f.Events(t.Context(), &debugapi.LogRequest{})
	got := strings.Join(receive(t, stream, err), "; ")
	for _, want := range []string{"shutdownasked for by me", "exitother", "exitpod"} {
		_, rest, found := strings.Cut(got, want)
		if !found {
			t.Fatalf("%s does not come in its turn: %s", want, got)
		}
		got = rest
	}
	if f.sandbox.State() != sandbox.StateStopped {
		t.Errorf("the sandbox is %s", f.sandbox.State())
	}
}

// TestKill ends the VM, whose loss has a cause.
func TestKill(t *testing.T) {
	f := newFixture(t)
	c := f.start(t, "pod", "wait")
	if _, err := f.End(t.Context(), &debugapi.EndRequest{By: "me\n"}); err != nil {
		t.Fatal(err)
	}
	init, err := c.Process("")
	if err == nil {
		err = init.Wait(t.Context())
	}
	if err != nil || init.Exit().Status != 255 {
		t.Errorf("exit %+v, %v", init.Exit(), err)
	}
	if cause := f.machine.Err(); cause == nil || !strings.Contains(cause.Error(), "ended by an operator: ccv2 kill, by me") {
		t.Errorf("cause %v", cause)
	}
	f.machine.report.VM = nil
	if _, err := f.End(t.Context(), &debugapi.EndRequest{}); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Errorf("without a vm: %v", err)
	}
}

// TestDoor: the socket is root's alone, and lets in so many.
func TestDoor(t *testing.T) {
	f := newFixture(t)
	info, err := os.Stat(filepath.Join(f.dir, debugapi.Socket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	f.info(t, false) // one is in
	var in []*ttrpc.Client
	defer func() {
		for _, c := range in {
			_ = c.Close()
		}
	}()
	for i := range 16 {
		c := ttrpc.NewClient(f.dial(t))
		in = append(in, c)
		_, err := debugapi.NewDebugClient(c).Info(t.Context(), &debugapi.InfoRequest{})
		if ok := err == nil; ok != (i < 15) {
			t.Errorf("client %d: %v", i+2, err)
		}
	}
	_ = in[0].Close()
	for err := errors.New("not yet"); err != nil && t.Context().Err() == nil; { // when it has left, another one gets in
		c := ttrpc.NewClient(f.dial(t))
		_, err = debugapi.NewDebugClient(c).Info(t.Context(), &debugapi.InfoRequest{})
		_ = c.Close()
	}
}

// TestExecRefused: without a program or a guest there is nothing to run.
func TestExecRefused(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "no program is named"}, {[]string{"x"}, "the sandbox is new"}} {
		f.machine.report.Guest = nil
		stream, err := f.Exec(t.Context())
		if err == nil {
			err = stream.Send(&debugapi.ExecInput{Start: &debugapi.ExecStart{Args: tt.args}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
