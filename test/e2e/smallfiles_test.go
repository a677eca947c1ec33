//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestSmallFiles: files that are read without being opened, in a root file system, are like
// those that are opened, in a volume.
func TestSmallFiles(t *testing.T) {
	dir, again := empty(t)
	sameAsRunc(t, []string{"/bin/small.d/small", "/tmp", "/v"}, []string{
		"tmp read ok 0123456789", "tmp copied ok 23456789456", "tmp terminal ENOTTY", "tmp grown ok 300000", "tmp removed ok second", "v sizes ok 0 817794",
	}, again, oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "small"), "/bin/small.d", "ro")}))
}

// TestSmallFilesFromOutside: what one of the host writes to a small file that the guest has read
// is read by the next one who opens it, at once.
func TestSmallFilesFromOutside(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "small-outside", harness.Streams{}, []string{"sleep", "1000000"})
	file := fmt.Sprintf("/proc/%d/root/tmp/file", task.Pid())
	for i := range 20 {
		text := fmt.Sprintf("%03d\n", i) // as long as the one before, and soon after it
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, status := shared.Output(t, task, fmt.Sprint("read", i), "cat", filepath.Join("/tmp", filepath.Base(file)), "/tmp/file")
		if want := strings.Repeat(text, 2); got != want || status != 0 {
			t.Errorf("status %d, %q, want %q", status, got, want)
		}
	}
	shared.KillTask(t, task)
}
