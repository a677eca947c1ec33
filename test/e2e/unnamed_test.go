//go:build e2e

package e2e_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestUnnamedFiles: those that O_TMPFILE makes, in the root file system and in volumes, one of
// them the host's memory.
func TestUnnamedFiles(t *testing.T) {
	dir, again := empty(t)
	mounts := []specs.Mount{bind(dir, "/v"), bind(testProgram(t, "unnamed"), "/bin/unnamed.d", "ro"), bind(onTmpfs(t), "/m")}
	lists := "LISTS=no"
	if ownKernel(t) {
		lists = "LISTS=yes"
	}
	for _, place := range []string{"/root", "/v", "/m"} {
		t.Run(filepath.Base(place), func(t *testing.T) {
			name := filepath.Base(place)
			sameAsRunc(t, []string{"/bin/unnamed.d/unnamed", place}, []string{
				name + " linked ok 100640 links 1, 0:0, size 4", name + " link O_EXCL ENOENT", name + " after the child ok 0123456789child", "another linked ok 100640 links 1, 1000:1234, size 0", name + " many ok 44850", name + " left ok 0",
			}, again, oci.WithMounts(mounts), oci.WithNewPrivileges, oci.WithEnv([]string{lists}))
		})
	}
}

// onTmpfs is a directory of the host's in its memory.
func onTmpfs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestUnnamedFilesOfPrograms does the same with what a language and its library make of it.
func TestUnnamedFilesOfPrograms(t *testing.T) {
	dir, again := empty(t)
	const script = `
import os, subprocess, tempfile
for place in "/v", "/root":
    made = []
    real = os.open
    os.open = lambda path, flags, *rest, **how: made.append(bool(flags & os.O_TMPFILE == os.O_TMPFILE)) or real(path, flags, *rest, **how)
    with tempfile.TemporaryFile(dir=place) as f:
        os.open = real
        print(place, made, os.fstat(f.fileno()).st_nlink, os.listdir(place))
        f.write(b"x" * 100000); f.flush()
        print(subprocess.run(["wc", "-c"], stdin=open(f"/proc/self/fd/{f.fileno()}", "rb"), capture_output=True).stdout)
    fd = os.open(place, os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.write(fd, b"whole")
    os.link(f"/proc/self/fd/{fd}", place + "/kept", src_dir_fd=0)
    os.close(fd)
    print(os.listdir(place), os.stat(place + "/kept").st_size, os.stat(place + "/kept").st_nlink)
    os.remove(place + "/kept")
`
	sameAsRunc(t, []string{"/usr/bin/python3", "-c", script}, []string{"/v [True] 0 []\nb'100000\\n'\n['kept'] 5 1\n"}, again, oci.WithMounts(append(userland(), bind(dir, "/v"))))
}

// TestUnnamedFileReadOnly: a volume that is only read has none.
func TestUnnamedFileReadOnly(t *testing.T) {
	dir := testProgram(t, "unnamed")
	sameAsRunc(t, []string{"/bin/unnamed.d/unnamed", "hold", "/bin/unnamed.d"}, []string{"unnamed.d make EROFS"}, nil, oci.WithMounts([]specs.Mount{bind(dir, "/bin/unnamed.d", "ro")}))
}

// TestUnnamedFileIsGone: the host has nothing of a file without a name when it was closed, while
// its container runs on.
func TestUnnamedFileIsGone(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	in, write := io.Pipe()
	var out harness.Buffer
	task := shared.Running(t, "unnamed-gone", harness.Streams{Stdin: in, Stdout: &out, Stderr: &out}, []string{"/bin/unnamed.d/unnamed", "hold", "/v"},
		oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "unnamed"), "/bin/unnamed.d", "ro")}))
	servers := shared.Find(harness.VirtioFSD, "unnamed-gone")
	harness.Until(t, "the file", func() bool { return strings.Contains(out.String(), "v held ok\n") })
	if len(unnamed(t, servers)) == 0 {
		t.Error("the server has no file without a name")
	}
	fmt.Fprintln(write)
	harness.Until(t, "the file to be closed", func() bool { return strings.Contains(out.String(), "v close ok\n") })
	harness.Until(t, "the server to close it", func() bool { return len(unnamed(t, servers)) == 0 })
	fmt.Fprintln(write)
	_ = write.Close()
	if status := shared.Finish(t, task); status != 0 {
		t.Errorf("status %d, %s", status, out.String())
	}
}

// unnamed are the files without a name that processes have open.
func unnamed(t *testing.T, processes []harness.Process) (names []string) {
	t.Helper()
	for _, p := range processes {
		for _, name := range p.FDs(t) {
			if strings.Contains(name, "/#") && strings.HasSuffix(name, " (deleted)") {
				names = append(names, name)
			}
		}
	}
	return names
}
