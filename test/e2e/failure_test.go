//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// garbage writes a file that is neither a kernel nor an archive.
func garbage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(path, []byte(strings.Repeat("not what you expect\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFailures wants each thing that can be missing or broken to give an error
// that says in which phase, what to do about it, and what the guest has said;
// and nothing to be left.
func TestFailures(t *testing.T) {
	const missing = "/nonexistent/file"
	tests := []struct {
		name   string
		change func(*harness.Settings)
		want   []string // in the error
	}{
		{"NoKernel", func(s *harness.Settings) { s.Kernel = missing }, []string{"guest.kernel", missing, "ccv2 image build"}},
		{"NoImage", func(s *harness.Settings) { s.Image = missing }, []string{"guest.image", missing, "ccv2 image build"}},
		{"NoQEMU", func(s *harness.Settings) { s.QEMU = missing }, []string{"hypervisor.path", missing, "install"}},
		{"NoVirtioFSD", func(s *harness.Settings) { s.VirtioFSD = missing }, []string{"share.virtiofsd", missing, "install"}},
		{"TwoThings", func(s *harness.Settings) { s.QEMU, s.Image = missing, missing }, []string{"hypervisor.path", "guest.image"}},
		{
			"BrokenKernel", func(s *harness.Settings) { s.Kernel = garbage(t) },
			[]string{"boot sandbox"},
		},
		{
			"BrokenImage", func(s *harness.Settings) { s.Image = garbage(t) },
			[]string{"boot sandbox", "guest not ready", "last console lines", "Kernel panic"},
		},
		{
			"NeverReady", func(s *harness.Settings) {
				s.Image = harness.Initrd(t, filepath.Join(t.TempDir(), "initrd"), shared.Busybox)
				s.BootTimeout = "1s" // six under emulation
			},
			[]string{"boot sandbox", "guest not ready", "boot_timeout", "last console lines"},
		},
		{"Malformed", func(s *harness.Settings) { s.Raw = "state_dir = [\n" }, []string{"ccv2.toml:1: "}},
		{
			"UnknownKeyAndWrongType", func(s *harness.Settings) { s.Raw = "[vm]\nvcpus = \"two\"\nmemory = 5\n" },
			[]string{"ccv2.toml:2: vm.vcpus: ", "ccv2.toml:3: vm.memory: "},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shared.Watch(t)
			shared.Configure(t, test.change)
			wantFailure(t, shared.Ctr(t, "run", "--rm", harness.ImageName, "fails", "true"), test.want)
		})
	}
	t.Run("NoRootfs", func(t *testing.T) {
		shared.Watch(t)
		got := shared.Ctr(t, "run", "--rm", "--rootfs", "/nonexistent/rootfs", "fails", "true")
		wantFailure(t, got, []string{"root file system", "/nonexistent/rootfs"})
	})
}

// wantFailure wants a command to have failed with an error that has all that is
// wanted.
func wantFailure(t *testing.T, got harness.Result, want []string) {
	t.Helper()
	t.Log(got.Stderr)
	if got.Code == 0 {
		t.Error("it succeeded")
	}
	for _, text := range want {
		if !strings.Contains(got.Stderr, text) {
			t.Errorf("the error does not say %q", text)
		}
	}
}
