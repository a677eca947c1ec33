//go:build e2e

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestDirectories: directories of a root file system, which the guest's own kernel reads
// without opening them, and those of a volume are what they are with runc, of all sizes, while
// they change, and for all calls that take them.
func TestDirectories(t *testing.T) {
	dir, again := empty(t)
	sameAsRunc(t, []string{"/bin/lists.d/lists", "/tmp", "/v"}, []string{
		"tmp 190 entries, buffer 280 ok \n", "tmp long names 200 ok  0", "tmp positions ok 0", "tmp those that stayed ok \n", "v from the beginning ok  0",
		"tmp read ENOENT 0", "tmp read and remove ok 0", "tmp lock it twice EAGAIN", "tmp changed image ok 1 1 <nil>", "v threads ok 0 \n",
	}, again, oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "lists"), "/bin/lists.d", "ro")}))
}

// TestDirectoriesFromOutside: what one of the host makes and removes in a directory that the
// guest has read before is there, and gone, for the next one who reads it, at once.
func TestDirectoriesFromOutside(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000000"})
		defer shared.KillTask(t, task)
		const many = 300 // do not fit into a reply
		for _, kept := range []int{3, many} {
			dir := fmt.Sprintf("/tmp/%d", kept)
			host := fmt.Sprintf("/proc/%d/root%s", task.Pid(), dir)
			for i := range kept {
				if err := os.MkdirAll(filepath.Join(host, fmt.Sprint("kept", i)), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 10 {
				name := fmt.Sprint("new", i)
				if err := os.WriteFile(filepath.Join(host, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				const script = `ls $1; echo; ls $1 | wc -l`
				out, status := shared.Output(t, task, fmt.Sprintf("list-%d-%d", kept, i), "sh", "-c", script, "sh", dir)
				if status != 0 || !strings.Contains(out, name+"\n") || !strings.HasSuffix(out, fmt.Sprintf("\n%d\n", kept+1)) {
					t.Errorf("status %d, %d lines, no %s", status, strings.Count(out, "\n"), name)
				}
				if err := os.Remove(filepath.Join(host, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestDirectoriesUnopened: who reads small directories of a root file system, and keeps them
// open, has none open at the server.
func TestDirectoriesUnopened(t *testing.T) {
	shared.Watch(t)
	const id, small = "directories-unopened", 20
	var streams direct
	task, err := shared.Container(t, id, []string{"sh", "-c", `
		for d in /tmp /v; do for i in $(seq $1); do mkdir $d/$i && echo >$d/$i/file; done; done
		mkdir /tmp/large && cd /tmp/large && seq 1000 | xargs touch
		for dirs in "/tmp/?  /tmp/??" "/v/? /v/??" /tmp/large; do
			echo begin; read -r line; /bin/lists.d/lists -hold $dirs
		done`, "sh", fmt.Sprint(small)},
		oci.WithMounts([]specs.Mount{bind(t.TempDir(), "/v"), bind(testProgram(t, "lists"), "/bin/lists.d", "ro")})).
		NewTask(shared.Context(), streams.create)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(shared.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(os.Stderr, streams.Stderr) }()
	lines := bufio.NewScanner(streams.Stdout)
	wait := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%q, want %q: %v", lines.Text(), want, lines.Err())
		}
	}
	wants := []int{small, small, 1}
	if ownKernel(t) {
		wants[0] = 0
	}
	for i, entries := range []int{3 * small, 3 * small, 1002} {
		wait("begin")
		before := openDirectories(t, id)
		fmt.Fprintln(streams.Stdin)
		wait(fmt.Sprint(entries))
		if more := openDirectories(t, id) - before; more != wants[i] {
			t.Errorf("step %d: the server has %d directories more open, want %d", i, more, wants[i])
		}
		fmt.Fprintln(streams.Stdin)
	}
	if err := streams.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if status := shared.Finish(t, task); status != 0 {
		t.Error("status", status)
	}
}

// openDirectories is how many directories the file server of a sandbox has open to read.
func openDirectories(t *testing.T, id string) (n int) {
	t.Helper()
	for _, p := range shared.Find(harness.VirtioFSD, id) {
		dir := filepath.Join("/proc", strconv.Itoa(p.PID))
		files, err := filepath.Glob(filepath.Join(dir, "fdinfo", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			info, err := os.ReadFile(file)
			if err != nil {
				continue // closed
			}
			_, text, _ := strings.Cut(string(info), "flags:\t")
			flags, err := strconv.ParseInt(strings.Fields(text)[0], 8, 64)
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if flags&unix.O_PATH == 0 && unix.Stat(filepath.Join(dir, "fd", filepath.Base(file)), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				n++
			}
		}
	}
	return n
}
