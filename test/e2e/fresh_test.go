//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestFileWrittenBeforeTheStart: what a client appends to a mounted file between Create
// and Start, as Docker does with /etc/hosts, is there for the init process.
func TestFileWrittenBeforeTheStart(t *testing.T) {
	shared.Watch(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // the VM of the first one has it cached for the others
		id := fmt.Sprint("fresh", i)
		var out harness.Buffer
		opts := []oci.SpecOpts{oci.WithMounts([]specs.Mount{bind(hosts, "/etc/hosts")})}
		if i > 0 {
			opts = append(opts, sandboxOf("fresh0"))
		}
		args := []string{"cat", "/etc/hosts"}
		if i == 0 {
			args = []string{"sh", "-c", "cat /etc/hosts; exec sleep 1000"}
		}
		task := shared.Task(t, shared.Container(t, id, args, opts...), harness.Streams{Stdout: &out, Stderr: &out})
		file, err := os.OpenFile(hosts, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(file, "10.0.0.%d %s\n", i, id); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if err := task.Start(shared.Context()); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(hosts)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			harness.Until(t, "the file in "+id, func() bool { return out.String() == string(want) })
			defer shared.KillTask(t, task)
			continue
		}
		shared.Finish(t, task)
		if out.String() != string(want) {
			t.Errorf("%s reads %q, want %q", id, out.String(), want)
		}
	}
}
