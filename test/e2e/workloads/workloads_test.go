//go:build e2e && workloads

package workloads_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// memory is the limit of a container, which is what the VM's size comes from.
const memory = 768 << 20

// capabilities are what some of the programs need beside the usual ones.
var capabilities = []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_NICE", "CAP_IPC_LOCK"}

// TestWorkloads runs each script in a container of its own, with a volume of the host
// at /data, with runc and with ccv2.
func TestWorkloads(t *testing.T) {
	scripts, err := filepath.Glob("scripts/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sh")
		t.Run(name, func(t *testing.T) {
			shared.Watch(t)
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			theirs := run(t, harness.Runc, name+"-runc", string(text))
			ours := run(t, harness.Runtime, name, string(text))
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("-runc +ccv2:\n%s", diff)
			}
			if !strings.HasSuffix(theirs, "status 0\n") {
				t.Errorf("with runc the script says %q", theirs)
			}
		})
	}
}

// run runs a script and returns what it says and its status.
func run(t *testing.T, runtime, id, script string, mounts ...specs.Mount) string {
	t.Helper()
	ctx := shared.Context()
	container, err := shared.Client.NewContainer(ctx, id, client.WithRuntime(runtime, nil), client.WithNewSpec(
		oci.WithProcessArgs("bash", "-c", script), oci.WithEnv([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}),
		oci.WithHostname("workload"), oci.WithMemoryLimit(memory), oci.WithAddedCapabilities(capabilities),
		oci.WithMounts(append(mounts,
			specs.Mount{Destination: "/data", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}},
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}},
		)), loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shared.Remove(t, id) })
	var out harness.Buffer
	task, err := container.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, &out, &out), cio.WithFIFODir(shared.FIFODir())), client.WithRootFS(overlay(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(ctx); err != nil {
		t.Fatal(err)
	}
	status := shared.Finish(t, task)
	return fmt.Sprintf("%sstatus %d\n", out.String(), status)
}

// overlay is a root file system of its own above the Debian that all have.
func overlay(t *testing.T) []mount.Mount {
	t.Helper()
	debian := os.Getenv("CCV2_DEBIAN")
	if _, err := os.Stat(filepath.Join(debian, "etc", "debian_version")); err != nil {
		t.Fatalf("run make workloads, which makes the root file system: %v", err)
	}
	dir := t.TempDir()
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + debian, "upperdir=" + upper, "workdir=" + work}}}
}

// loopback is up in a VM from the start; with runc a hook does it.
func loopback(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", `pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); nsenter -t $pid -n -- ip link set lo up`},
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}}}
	return nil
}
