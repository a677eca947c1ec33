//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// cannotRun are programs that cannot be run, with what the error says.
var cannotRun = []struct {
	name, program, want string
}{
	{"missing in PATH", "nosuch", `exec: "nosuch": executable file not found in $PATH`},
	{"missing", "/no/such", `exec: "/no/such": stat /no/such: no such file or directory`},
	{"no permission", "/programs/plain", `exec: "/programs/plain": permission denied`},
	{"no permission in PATH", "plain", `exec: "plain": executable file not found in $PATH`},
	{"directory", "/programs", `exec: "/programs": is a directory`},
	{"below a file", "/programs/plain/x", `exec: "/programs/plain/x": stat /programs/plain/x: not a directory`},
}

// programs makes a directory of files that are not programs and returns the option
// that mounts it.
func programs(t *testing.T) oci.SpecOpts {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "text": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/no/such\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return oci.Compose(
		oci.WithMounts([]specs.Mount{{Type: "bind", Source: dir, Destination: "/programs", Options: []string{"rbind", "ro"}}}),
		oci.WithEnv([]string{"PATH=/bin:/programs"}),
	)
}

// TestCannotRun wants the words of runc for a program that cannot be run: docker
// looks for some of them to tell 126, 127 and 125. Clients that read the output to
// its end before they delete, as containerd's own does, are not held up.
func TestCannotRun(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		mount := programs(t)
		for i, tt := range cannotRun {
			var out harness.Buffer
			container := shared.ContainerOn(t, runtime, fmt.Sprintf("%s-%d", id, i), []string{tt.program}, mount)
			_, err := shared.NewTask(t, container, harness.Streams{Stdout: &out, Stderr: &out})
			wantReason(t, "create: "+tt.name, err, tt.want)
		}
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, mount)
		for i, tt := range cannotRun {
			for _, terminal := range []bool{false, true} {
				err := failingExec(t, task, fmt.Sprintf("e%d-%v", i, terminal), func(p *specs.Process) {
					p.Args, p.Terminal = []string{tt.program}, terminal
				})
				wantReason(t, "exec: "+tt.name, err, tt.want)
			}
		}
		err := failingExec(t, task, "cwd", func(p *specs.Process) { p.Args, p.Cwd = []string{"true"}, "/no/such" })
		wantReason(t, "exec: missing cwd", err, "no such file or directory")
		for _, program := range []string{"text", "script"} {
			wantRefused(t, task, program)
		}
		shared.KillTask(t, task)
	})
}

// wantRefused wants a program that the kernel does not execute to be refused, or to
// have ended with that as its only output, as it does with runc.
func wantRefused(t *testing.T, task client.Task, program string) {
	t.Helper()
	spec, err := task.Spec(shared.Context())
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	process.Args = []string{"/programs/" + program}
	var out harness.Buffer
	p, err := shared.AddExec(task, program, harness.Streams{Stdout: &out, Stderr: &out}, &process)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	if err := p.Start(shared.Context()); err != nil {
		text = err.Error()
	}
	status := shared.Finish(t, p)
	text += out.String()
	t.Logf("%s: status %d, %q", program, status, text)
	if status == 0 || strings.Contains(text, `"level"`) || !strings.Contains(text, "no such file or directory") && !strings.Contains(text, "exec format error") {
		t.Errorf("%s: status %d, %q", program, status, text)
	}
}

// failingExec starts a process that cannot be, with clients that read what it
// writes, and returns why.
func failingExec(t *testing.T, task client.Task, id string, change func(*specs.Process)) (reason error) {
	t.Helper()
	ctx := shared.Context()
	spec, err := task.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	change(&process)
	var out harness.Buffer
	p, err := shared.AddExec(task, id, harness.Streams{Stdin: strings.NewReader("x"), Stdout: &out, Stderr: &out}, &process)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- p.Start(ctx) }()
	select {
	case reason = <-failed:
	case <-time.After(harness.Patience):
		t.Fatalf("start of %q has not returned: its output has not ended", process.Args)
	}
	if _, err := p.Delete(ctx); err != nil {
		t.Error(err)
	}
	if out.String() != "" {
		t.Errorf("%q has output %q", process.Args, out.String())
	}
	return reason
}

// wantReason wants an error in the words of runc, without what is around them.
func wantReason(t *testing.T, what string, err error, want string) {
	t.Helper()
	t.Logf("%s: %v", what, err)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), `"level"`) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
