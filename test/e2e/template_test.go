//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// sources returns where the VMs of sandboxes came from, by the sandbox's id: "boot" or
// "template".
func sources(log string) map[string]string {
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`msg="sandbox ready".* sandbox=(\S+) source=(\S+)`).FindAllStringSubmatch(log, -1) {
		all[m[1]] = m[2]
	}
	return all
}

// from runs a container in a VM of its own and fails when that has come from elsewhere.
func from(t *testing.T, source, id string, args ...string) string {
	t.Helper()
	i := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "type=") })
	run := slices.Concat([]string{"run", "--rm"}, args[:i], []string{harness.ImageName, id}, args[i:])
	out := shared.CtrOK(t, run...)
	if got := sources(shared.Log())[id]; got != source {
		t.Errorf("the VM of %s is from %q, want %q", id, got, source)
	}
	return out
}

// templates configures a directory of templates for a test, without any.
func templates(t *testing.T, background bool) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ccv2-e2e-tpl-") // its path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	shared.NoSpares(t)
	shared.Configure(t, func(s *harness.Settings) { s.Templates, s.NoTemplates, s.Background = dir, false, background })
	return dir
}

// ccv2 runs the operator's tool.
func ccv2(t testing.TB, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute) // at the end of the test, too
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(shared.Bin, "ccv2"), args...)
	cmd.Env = shared.Env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTemplateInBackground: the first pod boots, and those after it need not. A maker that is
// killed leaves nothing that matters.
func TestTemplateInBackground(t *testing.T) {
	dir := templates(t, true)
	from(t, "boot", "first", "true")
	killMakers(t, dir)
	harness.Until(t, "the end of the VM of a maker that was killed", func() bool { return len(makers(t, dir)) == 0 })
	if out, err := ccv2(t, "template", "remove", "-all"); err != nil { // it may have been faster
		t.Fatalf("%v: %s", err, out)
	}

	from(t, "boot", "second", "true")
	harness.Until(t, "a template", func() bool {
		out, err := ccv2(t, "template", "list")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Contains(out, "512 MiB")
	})
	harness.Until(t, "the end of the maker", func() bool { return len(makers(t, dir)) == 0 })
	from(t, "template", "third", "true")
	left, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// killMakers kills those who make a template, and their VMs. None of them has the socket of a
// shim, whose clients would wait for the answer of a process that has ended.
func killMakers(t *testing.T, dir string) {
	t.Helper()
	for _, pid := range makers(t, dir) {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(line, []byte("make-template")) {
			wantNoListener(t, pid)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}

// wantNoListener fails when clients can connect to a process.
func wantNoListener(t *testing.T, pid int) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, os.ErrNotExist) { // it has ended
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	for _, e := range fds {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(process, n, 0)
		if err != nil {
			continue // it was closed
		}
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens != 0 {
			t.Errorf("descriptor %d of process %d takes connections", n, pid)
		}
		unix.Close(fd)
	}
}

// makers are the processes that make a template in a directory, and their VMs.
func makers(t *testing.T, dir string) (pids []int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := bytes.Split(line, []byte{0})
		if bytes.Contains(line, []byte(dir)) || len(args) > 1 && string(args[1]) == "make-template" {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// TestTemplateDamaged: a template that is not as it was written is removed, and the VM boots.
func TestTemplateDamaged(t *testing.T) {
	for name, at := range map[string]int64{"memory": 40 << 20, "devices": 1000, "index.json": 10} {
		t.Run(name, func(t *testing.T) {
			dir := templates(t, false)
			if out, err := ccv2(t, "template", "build"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			paths, err := filepath.Glob(filepath.Join(dir, "*", name))
			if err != nil || len(paths) != 1 {
				t.Fatalf("%q, %v", paths, err)
			}
			f, err := os.OpenFile(paths[0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			// A hole of the memory would stay one for who does not look at it.
			at, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("damaged"), at)
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			from(t, "boot", "damaged-"+strings.TrimSuffix(name, ".json"), "true")
			if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		})
	}
}

// TestTemplateOfAnotherKind: neither a pod of another size nor one that has none gets the
// template of the usual ones.
func TestTemplateOfAnotherKind(t *testing.T) {
	dir := templates(t, false)
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shared.CtrOK(t, "run", "--rm", "--memory-limit", fmt.Sprint(300<<20), harness.ImageName, "smaller", "true")
	if got := sources(shared.Log())["smaller"]; got != "boot" {
		t.Errorf("a smaller VM is from %q", got)
	}
	if out, err := ccv2(t, "template", "build", "-memory", "300"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shared.CtrOK(t, "run", "--rm", "--memory-limit", fmt.Sprint(300<<20), harness.ImageName, "smaller-again", "true")
	if got := sources(shared.Log())["smaller-again"]; got != "template" {
		t.Errorf("a smaller VM is from %q", got)
	}
	shared.Configure(t, func(s *harness.Settings) {
		s.Templates = dir
		image := filepath.Join(dir, "image") // as an upgrade would
		content, err := os.ReadFile(s.Image)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(image, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s.Image = image
	})
	from(t, "boot", "another-image", "true")
}

// TestTemplateFullDisk: a template that has no room is an error that says so, and pods boot.
func TestTemplateFullDisk(t *testing.T) {
	dir := templates(t, false)
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if out, err := ccv2(t, "template", "build"); err == nil || !strings.Contains(out, "no space left on device") {
		t.Errorf("%v: %s", err, out)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.IsDir() }) {
		t.Errorf("left: %v", names)
	}
	from(t, "boot", "full", "true")
}
