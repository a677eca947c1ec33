//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// netns is a network namespace of a test.
type netns struct {
	tb   testing.TB
	name string
}

var netnses atomic.Int32

// newNetns makes a network namespace, which ends with the test.
func newNetns(tb testing.TB) netns {
	tb.Helper()
	n := netns{tb: tb, name: fmt.Sprintf("ccv2-e2e-%d-%d", os.Getpid(), netnses.Add(1))}
	command(tb, "ip", "netns", "add", n.name)
	tb.Cleanup(func() {
		if _, err := os.Stat(n.path()); err == nil { // else the test removed it
			command(tb, "ip", "netns", "del", n.name)
		}
	})
	return n
}

func (n netns) path() string { return filepath.Join("/run/netns", n.name) }

// ip runs the command in the namespace; args are split at spaces.
func (n netns) ip(args string) string {
	n.tb.Helper()
	return command(n.tb, "ip", append([]string{"-n", n.name}, strings.Fields(args)...)...)
}

func command(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// inside calls fn on a thread in the namespace.
func (n netns) inside(fn func() error) {
	n.tb.Helper()
	file, err := os.Open(n.path())
	if err != nil {
		n.tb.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := osthread.RunInNetNS(file, fn); err != nil {
		n.tb.Fatal(err)
	}
}

// with is how a container gets into the namespace.
func (n netns) with() oci.SpecOpts {
	return oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.path()})
}

// guest is a container in a pod whose network is tested.
type guest struct {
	*harness.Containerd

	tb    testing.TB
	sh    func(script string) (out string, status uint32)
	start func(script string) (wait func() (string, uint32))
}

// runGuest starts a container that waits in the namespace.
func runGuest(tb testing.TB, c *harness.Containerd, id string, n netns) guest {
	tb.Helper()
	task := c.Running(tb, id, harness.Streams{}, []string{"/bin/sleep", "1000000"}, n.with())
	count := 0
	start := func(script string) func() (string, uint32) {
		count++
		var out harness.Buffer
		p := c.Exec(tb, task, fmt.Sprintf("sh%d", count), harness.Streams{Stdout: &out, Stderr: &out}, "/bin/sh", "-c", script)
		return func() (string, uint32) {
			status := c.Finish(tb, p)
			return out.String(), status
		}
	}
	return guest{Containerd: c, tb: tb, start: start, sh: func(script string) (string, uint32) { return start(script)() }}
}

// must runs a script that must succeed.
func (g guest) must(script string) string {
	g.tb.Helper()
	out, status := g.sh(script)
	if status != 0 {
		g.tb.Fatalf("%s: exit status %d\n%s", script, status, out)
	}
	return out
}

// wants runs a command again and again until its output has each of the texts.
func (g guest) wants(script string, texts ...string) {
	g.tb.Helper()
	harness.Until(g.tb, fmt.Sprintf("%q in the output of %s", texts, script), func() bool {
		out, _ := g.sh(script)
		for _, text := range texts {
			if !strings.Contains(out, text) {
				return false
			}
		}
		return true
	})
}
