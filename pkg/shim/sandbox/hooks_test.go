package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// hook notes what it was told, and ends with a status.
func hook(kind string, status int) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf(`echo "%s $(cat)" >>log; echo %s says why >&2; exit %d`, kind, kind, status)}}}
}

// kinds are the kinds of hooks that were run, in their order.
func kinds(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		kind, _, _ := strings.Cut(line, " ")
		all = append(all, kind)
	}
	return strings.Join(all, " ")
}

// TestHooks of a whole life. They see the pid that the client will see.
func TestHooks(t *testing.T) {
	f := newFixture(t)
	dir := f.bundleOf("c", &specs.Spec{Process: &specs.Process{Args: []string{"wait"}, Cwd: "/"}, Hooks: &specs.Hooks{
		Prestart: hook("prestart", 0), CreateRuntime: hook("createRuntime", 0), Poststart: hook("poststart", 0), Poststop: hook("poststop", 1),
	}})
	c, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(t, dir); got != "prestart createRuntime" {
		t.Errorf("after Create: %s", got)
	}
	if n, err := bundle.LoadNote(dir); err != nil || !n.Poststop {
		t.Errorf("the bundle does not say that poststop is due: %+v, %v", n, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "log")); !strings.Contains(string(b), fmt.Sprintf(`"pid":%d`, c.PID())) {
		t.Errorf("pid %d is not in %s", c.PID(), b)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), "", 9, false); err != nil {
		t.Fatal(err)
	}
	f.wait(c, "")
	if _, err := c.Delete(t.Context()); err != nil {
		t.Errorf("a poststop hook that fails: %v", err)
	}
	if got := kinds(t, dir); got != "prestart createRuntime poststart poststop" {
		t.Errorf("in all: %s", got)
	}
	if n, err := bundle.LoadNote(dir); err != nil || n.Poststop {
		t.Errorf("the bundle says that poststop is due: %+v, %v", n, err)
	}
}

// TestHookFails: the call fails with its words, and nothing is left.
func TestHookFails(t *testing.T) {
	for _, kind := range []string{"prestart", "createRuntime"} {
		f := newFixture(t)
		f.create(podID, "wait")
		hooks := &specs.Hooks{Poststop: hook("poststop", 0)}
		if kind == "prestart" {
			hooks.Prestart = hook(kind, 3)
		} else {
			hooks.CreateRuntime = hook(kind, 3)
		}
		dir := f.bundleOf("c", &specs.Spec{Process: &specs.Process{Args: []string{"wait"}, Cwd: "/"}, Hooks: hooks})
		_, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: dir})
		if want := kind + " hook /bin/sh: exit status 3: " + kind + " says why"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if got := kinds(t, dir); got != kind+" poststop" || len(f.machine.OnHost()) != 1 {
			t.Errorf("%s ran; on the host: %v", got, f.machine.OnHost())
		}
		if list, err := f.machine.Agent.Processes(t.Context(), "c"); err == nil {
			t.Errorf("the guest has %v", list)
		}
	}
}

// TestPoststartFails ends the container, as with runc.
func TestPoststartFails(t *testing.T) {
	f := newFixture(t)
	dir := f.bundleOf("c", &specs.Spec{Process: &specs.Process{Args: []string{"wait"}, Cwd: "/"}, Hooks: &specs.Hooks{Poststart: hook("poststart", 1)}})
	c, err := f.Create(t.Context(), sandbox.CreateRequest{ID: "c", Bundle: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "poststart hook /bin/sh: exit status 1") {
		t.Errorf("start: %v", err)
	}
	if status := f.wait(c, ""); status != sandbox.StatusKilled {
		t.Errorf("status %d", status)
	}
	for _, e := range f.events.Events() {
		if strings.HasPrefix(e, "start") {
			t.Errorf("the call has failed, and there is %q", e)
		}
	}
}
