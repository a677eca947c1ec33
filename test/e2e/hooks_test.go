//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// withHooks adds hooks to a specification.
func withHooks(h specs.Hooks) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Hooks = &h
		return nil
	}
}

// shell is a hook that runs a shell.
func shell(script string) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}}
}

// static is a hook that runs a program of the host that needs no other files, so that it
// runs in a guest as well.
func static(args ...string) []specs.Hook { return []specs.Hook{{Path: shared.Busybox, Args: args}} }

// TestHooks runs all six kinds with runc and with ccv2: the same ones, in the same order,
// with the same state, and what they set up is there for the first process.
func TestHooks(t *testing.T) {
	shared.Watch(t)
	if diff := cmp.Diff(hooked(t, harness.Runc), hooked(t, harness.Runtime)); diff != "" {
		t.Errorf("-runc +ccv2:\n%s", diff)
	}
}

// hooked is what hooks noted, and what a container's process sees of their work.
func hooked(t *testing.T, runtime string) []string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	note := func(kind string) string {
		// The state in one line, and whether the pid is a process, in the place of the pid.
		return `state=$(cat); echo "` + kind + ` $state" >>` + log + `; `
	}
	id := "hooked-" + runtime[len(runtime)-len("runc.v2"):len(runtime)-len(".v2")]
	var out harness.Buffer
	const look = "cat /started; ip -4 -o addr show dev hook0 | tr -s ' ' | cut -d' ' -f2-4; cat /sys/class/net/lo/mtu"
	task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", look}, withHooks(specs.Hooks{
		Prestart: shell(note("prestart")),
		CreateRuntime: shell(note("createRuntime") + `pid=${state#*'"pid":'}; pid=${pid%%,*}
			nsenter -t $pid -n -- sh -ec 'ip link add hook0 type veth peer name hook1; ip link set hook0 up; ip link set hook1 up; ip addr add 10.9.8.7/24 dev hook0'`),
		CreateContainer: static("ip", "link", "set", "lo", "mtu", "1234"),
		StartContainer:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo before the process >/started"}}},
		Poststart:       shell(note("poststart")),
		Poststop:        shell(note("poststop")),
	}))
	pid := task.Pid()
	got := []string{"exit status", string(rune('0' + shared.Finish(t, task)))}
	got = append(got, out.String())
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		kind, text, _ := strings.Cut(line, " ")
		var state specs.State
		if err := json.Unmarshal([]byte(text), &state); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		pidIs := "another"
		switch state.Pid {
		case int(pid):
			pidIs = "the task's"
		case 0:
			pidIs = "none"
		}
		if kind == "poststart" && state.Status == specs.StateCreated && runtime == harness.Runc {
			state.Status = specs.StateRunning // it runs these at the end of create, before there is a process
		}
		got = append(got, kind+": "+string(state.Status)+", pid "+pidIs+", bundle "+strings.ReplaceAll(state.Bundle, id, "ID")+", "+strings.ReplaceAll(state.ID, id, "ID"))
	}
	return got
}

// TestHookFails: with a hook of each kind that fails the call does, and nothing is left.
func TestHookFails(t *testing.T) {
	shared.Watch(t)
	fail := shell("echo it has failed >&2; exit 3")
	inside := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}}}
	for kind, hooks := range map[string]specs.Hooks{
		"prestart": {Prestart: fail}, "createRuntime": {CreateRuntime: fail}, "createContainer": {CreateContainer: static("false")},
		"startContainer": {StartContainer: inside}, "poststart": {Poststart: fail},
		"missing": {CreateRuntime: []specs.Hook{{Path: "/no/such/hook"}}},
	} {
		theirs, ours := failing(t, kind, harness.Runc, hooks), failing(t, kind, harness.Runtime, hooks)
		if theirs != ours {
			t.Errorf("%s: with runc %s, with ccv2 %s", kind, theirs, ours)
		}
	}
}

// failing is how a container ends whose hooks fail: with a call, or with a status.
func failing(t *testing.T, kind, runtime string, hooks specs.Hooks) string {
	t.Helper()
	id := "fails-" + strings.ToLower(kind)
	defer shared.Remove(t, id)
	task, err := shared.NewTask(t, shared.ContainerOn(t, runtime, id, []string{"sleep", "1000"}, withHooks(hooks)), harness.Streams{})
	if err != nil {
		return "a call fails"
	}
	exited, err := task.Wait(shared.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(shared.Context()); err != nil {
		return "a call fails" // runc runs poststart at the end of create already
	}
	status := <-exited // that of the OCI runtime in the end, which differs
	return fmt.Sprintf("exits with 0: %v", status.ExitCode() == 0)
}
