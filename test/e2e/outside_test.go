//go:build e2e

package e2e_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// outside are the ways in which one of the host writes a text of the same length to a
// file of a container's root file system, so that its size does not tell.
var outside = map[string]func(path, text string) error{
	"in place, with its old time": func(path, text string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := writeInPlace(path, text); err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime())
	},
	"cut and written": func(path, text string) error { return os.WriteFile(path, []byte(text), 0) },
	"by its other name": func(path, text string) error {
		other := path + "-other"
		if err := os.Link(path, other); err != nil {
			return err
		}
		if err := writeInPlace(other, text); err != nil {
			return err
		}
		return os.Remove(other)
	},
	"mapped": func(path, text string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		mapped, err := unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(mapped, text)
		return unix.Munmap(mapped)
	},
}

func writeInPlace(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// old is a file whose next change has another time for sure: only that of such a file is
// believed.
const old = 3 * time.Second

// TestWrittenFromOutside: what is written into a root file system from outside is what
// the next one reads who opens the file, however often it was read before, and what
// replaces a file is soon found.
func TestWrittenFromOutside(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		var streams direct
		task, err := shared.ContainerOn(t, runtime, id, []string{"sh", "-c", `while read -r line; do eval "$line"; done`}).
			NewTask(shared.Context(), streams.create)
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Start(shared.Context()); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, streams.Stderr) }()
		output := bufio.NewScanner(streams.Stdout)
		ask := func(command string) string {
			t.Helper()
			if _, err := io.WriteString(streams.Stdin, command+"\n"); err != nil || !output.Scan() {
				t.Fatal(command, err, output.Err())
			}
			return output.Text()
		}
		root := fmt.Sprintf("/proc/%d/root", task.Pid())
		t.Run("written", func(t *testing.T) { written(t, root, ask) })
		t.Run("replaced", func(t *testing.T) { replaced(t, root, ask) })
		if err := streams.Stdin.Close(); err != nil {
			t.Fatal(err)
		}
		shared.KillTask(t, task)
	})
}

// written changes files that the guest has in memory, and new ones, time and again.
func written(t *testing.T, root string, ask func(string) string) {
	for i := range 3 {
		changed := time.Now()
		for n := range 4 {
			for name, write := range outside {
				file, want := "/"+strings.ReplaceAll(name, " ", "-"), fmt.Sprintf("%d of %d", n, i)
				if i+n == 0 {
					ask("echo - of - >" + file + "; cat " + file)
				}
				changed = time.Now()
				if err := write(root+file, want+"\n"); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if got := ask("cat " + file); got != want {
						t.Errorf("%s: the container reads %q, want %q", name, got, want)
					}
				}
			}
		}
		harness.Until(t, "the files to be old", func() bool { return time.Since(changed) > old })
		for name := range outside {
			for range 2 {
				ask("cat /" + strings.ReplaceAll(name, " ", "-"))
			}
		}
	}
}

// replaced changes names, sizes and modes, of which the guest looks again after a while.
func replaced(t *testing.T, root string, ask func(string) string) {
	ask("mkdir -p /dir/a; echo old >/dir/a/file; cat /dir/a/file /dir/a/file | sort -u")
	ask("mkdir /dir/fresh; test -e /dir/fresh/file; mkdir /dir/fresh/below; chmod 755 /dir/fresh; test -e /dir/fresh/below/file; echo made")
	for _, step := range []struct{ change, ask, want string }{
		{"echo new >dir/new && mv dir/new dir/a/file", "cat /dir/a/file", "new"},
		{"rm dir/a/file && echo made again >dir/a/file", "cat /dir/a/file", "made again"},
		{"echo and longer >>dir/a/file", "tail -n 1 /dir/a/file", "and longer"},
		{"echo short >dir/a/file", "cat /dir/a/file", "short"},
		{"chmod 4711 dir/a/file", "stat -c %a /dir/a/file", "4711"},
		{"chown 12:34 dir/a/file", "stat -c %u:%g /dir/a/file", "12:34"},
		{"ln dir/a/file dir/second", "stat -c %h /dir/a/file", "2"},
		{"mv dir/a dir/b && mkdir dir/a && echo another >dir/a/file", "cat /dir/a/file", "another"},
		{"rm -r dir/a", "test -e /dir/a || echo gone", "gone"},
	} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "cd "+root+" && "+step.change)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step.change, err, out)
		}
		harness.Until(t, step.change, func() bool { return ask("{ "+step.ask+" || :; echo; } 2>/dev/null | head -n 1") == step.want })
	}
}

// TestSeenOutside: what a container writes piece by piece into a file that stays open is
// soon in the file that the host sees, all of it.
func TestSeenOutside(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		const lines = 3000
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{
			"sh", "-c",
			fmt.Sprintf("exec >/file; i=0; while [ $((i += 1)) -le %d ]; do echo line $i; done; exec sleep 1000", lines),
		})
		defer shared.KillTask(t, task)
		var want strings.Builder
		for i := range lines {
			fmt.Fprintln(&want, "line", i+1)
		}
		file := fmt.Sprintf("/proc/%d/root/file", task.Pid())
		harness.Until(t, "the host to see it", func() bool {
			got, err := os.ReadFile(file)
			if err == nil && !strings.HasPrefix(want.String(), string(got)) {
				t.Fatalf("%s: the host sees %d bytes that were not written", runtime, len(got))
			}
			return err == nil && len(got) == want.Len()
		})
	})
}

// TestPieces: a file that is written in small pieces, and meanwhile read, mapped, cut,
// renamed and written by others, is at each moment what it must be; the host sees the
// same when it is closed.
func TestPieces(t *testing.T) {
	dir := testProgram(t, "pieces")
	volume := t.TempDir()
	besideRunc(t, func(t *testing.T, runtime, id string) {
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"},
			oci.WithMounts([]specs.Mount{bind(dir, "/bin/pieces.d", "ro"), bind(volume, "/v")}))
		defer shared.KillTask(t, task)
		for file, host := range map[string]string{"/file": fmt.Sprintf("/proc/%d/root/file", task.Pid()), "/v/file": filepath.Join(volume, "file")} {
			for seed := range 3 {
				out, status := shared.Output(t, task, fmt.Sprintf("pieces-%d-%d", strings.Count(file, "/"), seed), "/bin/pieces.d/pieces", file, fmt.Sprint(seed))
				if status != 0 {
					t.Fatalf("%s, seed %d: status %d: %s", file, seed, status, out)
				}
				got, err := os.ReadFile(host)
				if err != nil {
					t.Fatal(err)
				}
				if sum := fmt.Sprintf("%x\n", sha256.Sum256(got)); sum != out {
					t.Errorf("%s, seed %d: the host sees %d bytes with sum %s, the program wrote those of %s", file, seed, len(got), sum, out)
				}
			}
		}
	})
}

// TestReadOnce: what a guest has read of its root file system it does not read again
// when it is opened again, as each start of a program does.
func TestReadOnce(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "read-once", harness.Streams{}, []string{"sleep", "1000"})
	defer shared.KillTask(t, task)
	const size = 8 << 20
	if out, status := shared.Output(t, task, "make", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/file", size)); status != 0 {
		t.Fatal(out)
	}
	file, err := os.Stat(fmt.Sprintf("/proc/%d/root/file", task.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the file to be old", func() bool { return time.Since(file.ModTime()) > old })
	read := func(n int) int64 {
		t.Helper()
		before := readByServer(t, "read-once")
		if out, status := shared.Output(t, task, fmt.Sprint("read", n), "sh", "-c", "wc -c </file"); status != 0 || strings.TrimSpace(out) != strconv.Itoa(size) {
			t.Fatalf("status %d, %q", status, out)
		}
		return readByServer(t, "read-once") - before
	}
	if first, second := read(1), read(2); first < size || second > size/8 {
		t.Errorf("the file server read %d bytes for the first reader of %d, %d for the second", first, size, second)
	}
}

// readByServer is what the file server of a sandbox has read from files.
func readByServer(t *testing.T, id string) (n int64) {
	t.Helper()
	for _, p := range shared.Find(harness.VirtioFSD, id) {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "io"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "rchar: "); ok {
				read, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				n += read
			}
		}
	}
	return n
}
