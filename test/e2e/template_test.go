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
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
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
	shared.Configure(t, func(s *harness.Settings) { s.Templates, s.NoTemplates, s.Background = dir, false, background })
	return dir
}

// ccv2 runs the operator's tool.
func ccv2(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(shared.Bin, "ccv2"), args...)
	cmd.Env = shared.Env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cloneScript prints what is to differ, and what is the host's.
const cloneScript = `
echo "urandom $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
echo "uuid $(cat /proc/sys/kernel/random/uuid)"
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "shell $(awk '$NF == "[stack]" { print $1 }' /proc/self/maps)"
echo "loader $(awk '$NF == "[vdso]" { print $1 }' /proc/self/maps)"
echo "heap $(awk '$NF == "[heap]" { print $1 }' /proc/self/maps)"
echo "time $(date +%s)"
echo "up $(cut -d. -f1 /proc/uptime)"
/clone
`

// cloneLines is how many lines that makes.
const cloneLines = 14

// clones collects what clones say.
type clones struct {
	mu   sync.Mutex        // guards what follows
	seen map[string]string // who has said it, by the name and the value
	isns map[string][3]isn // by clone
}

// isn is the initial sequence number of a connection, without what the kernel adds to it for the
// time: somewhere from least to most. What is left depends on a secret of the kernel.
type isn struct{ least, most uint32 }

// TestTemplateClones: VMs from one template, two of them at the same time, have random numbers,
// addresses and secrets of their own, the host's time, and nothing of each other.
func TestTemplateClones(t *testing.T) {
	templates(t, false)
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program := filepath.Join(t.TempDir(), "clone")
	build := exec.Command("go", "build", "-o", program, "./testdata/clone")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mount := []string{"--privileged", "--mount", "type=bind,src=" + program + ",dst=/clone,options=rbind:ro"}
	c := &clones{seen: map[string]string{}, isns: map[string][3]isn{}}
	t.Run("clones", func(t *testing.T) {
		for i := range 20 {
			id := fmt.Sprintf("clone%d", i)
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				before := time.Now().Unix()
				out := from(t, "template", id, append(slices.Clone(mount), "sh", "-c", cloneScript)...)
				if len(strings.Split(strings.TrimSpace(out), "\n")) != cloneLines {
					t.Errorf("%s said:\n%s", id, out)
				}
				c.add(t, id, out, before)
			})
		}
	})
	for a, x := range c.isns {
		for b, y := range c.isns {
			if a < b && same(x, y) {
				t.Errorf("%s and %s have the same secret for TCP's sequence numbers: %v, %v", a, b, x, y)
			}
		}
	}
	twice := &clones{seen: map[string]string{}, isns: map[string][3]isn{}}
	first, second, _ := strings.Cut(from(t, "template", "twice", append(slices.Clone(mount), "sh", "-c", "/clone; echo; /clone")...), "\n\n")
	twice.add(t, "first", first, 0)
	twice.add(t, "second", second, 0)
	if !same(twice.isns["first"], twice.isns["second"]) {
		t.Errorf("what is said of one kernel's secret differs: %v", twice.isns)
	}
	log := shared.CtrOK(t, "run", "--rm", "--privileged", harness.ImageName, "after", "dmesg")
	if !strings.Contains(log, "Linux version") || strings.Contains(log, "clone") {
		t.Errorf("the kernel's log has the past of other pods:\n%s", log)
	}
}

// TestTemplateNames: what a pod is known by in its network is its own.
func TestTemplateNames(t *testing.T) {
	templates(t, false)
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ := ccv2(t, "check") // it may have other things to complain about
	for _, want := range []string{"ok    templates ", "ok    from template  ready for containers after"} {
		if !strings.Contains(out, want) {
			t.Errorf("ccv2 check says nothing of %q:\n%s", want, out)
		}
	}
	for i, id := range []string{"names1", "names2", "names3"} {
		_, pod := newPodNetwork(t)
		want := fmt.Sprintf("02:00:00:00:01:%02x", i)
		pod.ip("link set eth0 address " + want)
		task := shared.Running(t, id, harness.Streams{}, []string{"/bin/sleep", "1000000"}, pod.with(), oci.WithHostname(id))
		out, status := shared.Output(t, task, "names", "sh", "-c", "hostname; cat /sys/class/net/eth0/address")
		name, mac, _ := strings.Cut(strings.TrimSpace(out), "\n")
		if status != 0 || name != id || mac != want {
			t.Errorf("%s is called %q and has the address %q, want %q: status %d", id, name, mac, want, status)
		}
		if got := sources(shared.Log())[id]; got != "template" {
			t.Errorf("the VM of %s is from %q", id, got)
		}
		shared.KillTask(t, task)
	}
}

// add compares what a clone has said with the others.
func (c *clones) add(t *testing.T, id, out string, before int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "time":
			var at int64
			if _, err := fmt.Sscan(value, &at); err != nil || at < before-1 || at > time.Now().Unix()+1 {
				t.Errorf("%s: the time is %s, on the host it was %d: %v", id, value, before, err)
			}
		case "up":
		case "isn0", "isn1", "isn2":
			var seq uint32
			var begin, end int64
			if _, err := fmt.Sscan(value, &seq, &begin, &end); err != nil {
				t.Errorf("%s: %q: %v", id, line, err)
			}
			const shift = 6 // nanoseconds to the kernel's ticks
			all := c.isns[id]
			all[key[3]-'0'] = isn{least: seq - uint32(end>>shift), most: seq - uint32(begin>>shift)}
			c.isns[id] = all
		default:
			if value == "" || c.seen[key+value] != "" {
				t.Errorf("%s: %s %q, as that of %q", id, key, value, c.seen[key+value])
			}
			c.seen[key+value] = id
		}
	}
}

// same reports whether all sequence numbers can be from one secret: what is left of them without
// the time is in the same place.
func same(a, b [3]isn) bool {
	for i := range a {
		// Differences, as the numbers begin anew after 32 bits.
		if a[i].least-b[i].least > b[i].most-b[i].least && b[i].least-a[i].least > a[i].most-a[i].least {
			return false
		}
	}
	return true
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
