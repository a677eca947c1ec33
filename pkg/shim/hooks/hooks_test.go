package hooks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// script is a hook that runs a shell.
func script(text string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", text}, Env: []string{"PATH=/bin:/usr/bin"}}
}

func container(t *testing.T, h *specs.Hooks) *Hooks {
	t.Helper()
	return Of("c", &bundle.Bundle{Dir: t.TempDir(), Spec: &specs.Spec{
		Hooks: h, Annotations: map[string]string{"a": "b"}, Process: &specs.Process{Env: []string{"OF=process"}},
	}})
}

func read(t *testing.T, c *Hooks, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.bundle.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOrder and states of a whole life.
func TestOrder(t *testing.T) {
	noting := func(kind string) []specs.Hook {
		return []specs.Hook{script("echo " + kind + "1 >>log; cat >" + kind), script("echo " + kind + "2 >>log")}
	}
	c := container(t, &specs.Hooks{
		Prestart: noting("prestart"), CreateRuntime: noting("createRuntime"), Poststart: noting("poststart"), Poststop: noting("poststop"),
	})
	if err := c.Create(t.Context(), 42); err != nil {
		t.Fatal(err)
	}
	if err := c.Started(t.Context(), 42); err != nil {
		t.Fatal(err)
	}
	if !c.Due() {
		t.Error("poststop is not due")
	}
	for range 2 { // once
		if err := c.Stopped(t.Context()); err != nil || c.Due() {
			t.Fatal(err)
		}
	}
	want := "prestart1 prestart2 createRuntime1 createRuntime2 poststart1 poststart2 poststop1 poststop2"
	if got := strings.Join(strings.Fields(read(t, c, "log")), " "); got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	for kind, status := range map[string]specs.ContainerState{"prestart": "creating", "createRuntime": "creating", "poststart": "running", "poststop": "stopped"} {
		var state specs.State
		if err := json.Unmarshal([]byte(read(t, c, kind)), &state); err != nil {
			t.Fatal(err)
		}
		if state.Status != status || (state.Pid != 42) != (kind == "poststop") || state.ID != "c" || state.Bundle != c.bundle.Dir || state.Annotations["a"] != "b" {
			t.Errorf("%s: %+v", kind, state)
		}
	}
}

// TestFailures say which hook, and what it said.
func TestFailures(t *testing.T) {
	one, zero := 1, 0
	slow := script("echo waiting; exec sleep 60")
	slow.Timeout = &one
	never := script("true")
	never.Timeout = &zero
	for name, test := range map[string]struct {
		hook specs.Hook
		want string
	}{
		"fails":    {script("echo no such bridge >&2; exit 3"), "createRuntime hook /bin/sh: exit status 3: no such bridge"},
		"slow":     {slow, "createRuntime hook /bin/sh: killed after its timeout of 1 s: waiting"},
		"never":    {never, "its timeout is 0 s"},
		"relative": {specs.Hook{Path: "sh"}, "its path must be absolute"},
		"missing":  {specs.Hook{Path: "/no/such/hook"}, "createRuntime hook /no/such/hook: "},
	} {
		t.Run(name, func(t *testing.T) {
			c := container(t, &specs.Hooks{CreateRuntime: []specs.Hook{test.hook, script("echo >reached")}})
			if err := c.Create(t.Context(), 42); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(c.bundle.Dir, "reached")); err == nil {
				t.Error("the next hook ran")
			}
		})
	}
}

// TestPoststopGoesOn after a failure, which is reported.
func TestPoststopGoesOn(t *testing.T) {
	c := container(t, &specs.Hooks{Poststop: []specs.Hook{script("exit 1"), script("echo done >reached")}})
	if err := c.Stopped(t.Context()); err == nil || !strings.Contains(err.Error(), "poststop hook /bin/sh: exit status 1") {
		t.Errorf("%v", err)
	}
	read(t, c, "reached")
}

// TestEnvironment is the hook's own, or that of the container's process; a process that
// a hook leaves in the background does not hold it up.
func TestEnvironment(t *testing.T) {
	own, inherited := script(`echo "$PATH$OF" >own; sleep 3 &`), script(`echo "$OF" >inherited`)
	inherited.Env = nil
	c := container(t, &specs.Hooks{CreateRuntime: []specs.Hook{own, inherited}})
	if err := c.Create(t.Context(), 42); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "own"); got != "/bin:/usr/bin\n" {
		t.Errorf("own environment: %q", got)
	}
	if got := read(t, c, "inherited"); got != "process\n" {
		t.Errorf("inherited environment: %q", got)
	}
}

// TestNone: a bundle without hooks has nothing to run.
func TestNone(t *testing.T) {
	c := container(t, nil)
	if c.Due() || (*Hooks)(nil).Due() {
		t.Error("it has hooks")
	}
	for _, run := range []error{c.Create(t.Context(), 42), c.Started(t.Context(), 42), c.Stopped(t.Context())} {
		if run != nil {
			t.Error(run)
		}
	}
}
