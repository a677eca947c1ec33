package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestCompatProgram: an original guest is not asked for a program that is not there, and what it
// does not run has its name.
func TestCompatProgram(t *testing.T) {
	missing := errors.New(`exec: "none": no`)
	find := func(_ context.Context, p *specs.Process) error {
		if p.Args[0] == "none" {
			return client.CannotRun(127, missing)
		}
		return nil
	}
	for _, dialect := range originals {
		f := newFixture(t, dialect, func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
			if code == hyperstart.NewContainer || code == hyperstart.ExecCmd {
				return hyperstart.Error, nil // all that hyperstart 0.7.0 says, before it ends
			}
			return hyperstart.Ack, nil
		}, client.Options{}).start()
		for id, program := range map[string]string{"missing": "none", "c": "other"} {
			c := client.Container{ID: id, Spec: newSpec(), FindProgram: find}
			c.Spec.Process.Args = []string{program}
			if err := f.CreateContainer(t.Context(), f.session(), c); err != nil {
				t.Fatal(err)
			}
		}
		exec := execOf("e")
		exec.Process.Args = []string{"none"}
		goAgent := dialect == hyperstart.DialectClearGo
		for what, err := range map[string]error{"start": f.StartContainer(t.Context(), "missing"), "exec": f.Exec(t.Context(), f.session(), exec)} {
			asked := goAgent && what == "exec" && err != nil && strings.HasPrefix(err.Error(), missing.Error()+" (the guest: ")
			if status, ok := client.ExitStatus(err); err == nil || err.Error() != missing.Error() && !asked || status != 127 || !ok || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s, %s: %v, status %d", dialect, what, err, status)
			}
		}
		if got := f.sent(1); len(got) > 0 != goAgent {
			t.Errorf("%s: the guest was asked: %s", dialect, got)
		}
		if err := f.RemoveContainer(t.Context(), "missing"); err != nil {
			t.Errorf("%s: %v", dialect, err)
		}
		exec.Process.Args = []string{"other", "argument"}
		for what, err := range map[string]error{"start": f.StartContainer(t.Context(), "c"), "exec": f.Exec(t.Context(), f.session(), exec)} {
			named := dialect == hyperstart.DialectClearGo || err != nil && strings.HasPrefix(err.Error(), `run "other": `)
			if err == nil || !named || !strings.Contains(err.Error(), "the guest gave no reason") {
				t.Errorf("%s, %s: %v", dialect, what, err)
			}
		}
	}
}

// TestCompatMountedProgram: the Go agent, which says what it does not run, is asked for an exec of a program
// that may be in a mount which only the guest has; the container's own cannot be.
func TestCompatMountedProgram(t *testing.T) {
	find := func(context.Context, *specs.Process) error { return client.CannotRun(127, errors.New("no")) }
	for _, dialect := range originals {
		f := newFixture(t, dialect, nil, client.Options{}).start()
		if err := f.CreateContainer(t.Context(), f.session(), client.Container{ID: "c", Spec: newSpec(), FindProgram: find}); err != nil {
			t.Fatal(err)
		}
		if err := f.Exec(t.Context(), f.session(), execOf("e")); (err == nil) != (dialect == hyperstart.DialectClearGo) {
			t.Errorf("%s: exec: %v", dialect, err)
		}
		if err := f.StartContainer(t.Context(), "c"); err == nil {
			t.Errorf("%s: started", dialect)
		}
	}
}
