//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// fewDescriptors has the share's server start with a small limit, as hosts have it
// whose containerd has one.
func fewDescriptors(t *testing.T, limit int) {
	t.Helper()
	shared.Configure(t, func(s *harness.Settings) {
		script := filepath.Join(t.TempDir(), "virtiofsd")
		text := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != --version ] || exec %[1]s --version\nexec %[1]s \"$@\" --rlimit-nofile=%[2]d\n", s.VirtioFSD, limit)
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		s.VirtioFSD = script
	})
}

// manyFiles makes files with a line in each, and returns their directory.
func manyFiles(t *testing.T, directories, each int) string {
	t.Helper()
	root := t.TempDir()
	for d := range directories {
		dir := filepath.Join(root, fmt.Sprintf("d%03d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range each {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", f)), fmt.Appendln(nil, d, f), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// walks look at more files than the server can have open, and end with one that must
// be there.
var walks = []struct{ name, script string }{
	{"Find", `find /v -type f | wc -l; find /v -type f -size +0 -name 'f1*' | wc -l; cat /v/d059/f074`},
	{"Tar", `cd /v && tar cf - . | tar tf - | sort | md5sum; cat d000/f000`},
	{"Open", `cd /v/d030; exec 3<f001 4<f002; { for f in /v/d00?/*; do cat "$f"; done; ls -lR /v; } | md5sum; cat <&3; cat f003; cd ..; cat d031/f004`},
	{"Twice", `ls -lR /v | md5sum >/tmp/listed & du -a /v | wc -l; wait; cat /tmp/listed; for d in /v/*; do cat $d/f074 || exit 1; done | md5sum`},
}

// TestMoreFilesThanDescriptors: a container that looks at more files than the server
// of the share can have open gets all of them, and so does who comes afterwards. One
// pod runs all of it.
func TestMoreFilesThanDescriptors(t *testing.T) {
	shared.Watch(t)
	fewDescriptors(t, 1500)
	mounts := oci.WithMounts([]specs.Mount{bind(manyFiles(t, 60, 75), "/v", "ro")})
	running := func(runtime, id string) func(t *testing.T, name, script string) string {
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, mounts)
		t.Cleanup(func() { shared.KillTask(t, task) })
		return func(t *testing.T, name, script string) string {
			var out harness.Buffer
			p := shared.Exec(t, task, name, harness.Streams{Stdout: &out, Stderr: &out}, "sh", "-c", script)
			if status := shared.Finish(t, p); status != 0 {
				t.Errorf("%s: status %d", id, status)
			}
			return out.String()
		}
	}
	vm, runc := running(harness.Runtime, "descriptors"), running(harness.Runc, "descriptors-runc")
	for _, walk := range walks {
		t.Run(walk.name, func(t *testing.T) {
			got, want := vm(t, walk.name, walk.script), runc(t, walk.name, walk.script)
			if got != want {
				t.Errorf("in the VM:\n%s\nwith runc:\n%s", got, want)
			}
		})
	}
}

// TestMoreOpenThanDescriptors: what a container has open cannot be forgotten. It gets
// an error for a further file, and some time after it has closed them every file is
// there.
func TestMoreOpenThanDescriptors(t *testing.T) {
	shared.Watch(t)
	fewDescriptors(t, 1500)
	// A full pod starts no program, so the shell waits by itself.
	const script = `tail -f /v/d00?/f* > /dev/null 2> /tmp/errors &
until [ -s /tmp/errors ]; do :; done
kill $!; wait; grep -m 1 -o 'Too many open files in system' /tmp/errors
until [ "$(find /v -type f 2> /dev/null | wc -l)" = 2000 ]; do :; done; cat /v/d000/f000 /v/d009/f199`
	var out harness.Buffer
	task := shared.Running(t, "open", harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", script}, oci.WithMounts([]specs.Mount{
		bind(manyFiles(t, 10, 200), "/v", "ro"),
		{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp"},
	}), func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10_000, Hard: 10_000}}
		return nil
	})
	if status, got := shared.Finish(t, task), out.String(); status != 0 || got != "Too many open files in system\n0 0\n9 199\n" {
		t.Errorf("status %d, output %q", status, got)
	}
}
