//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestPID does on the host what tools do with a container's pid, once with runc and
// once with ccv2: nobody can tell the difference.
func TestPID(t *testing.T) {
	shared.Watch(t)
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Fatal(err)
	}
	runc, ours := byPID(t, harness.Runc), byPID(t, harness.Runtime)
	if diff := cmp.Diff(runc, ours); diff != "" {
		t.Errorf("-runc +ccv2:\n%s", diff)
	}
}

// byPID is what one runtime shows, by what was done.
func byPID(t *testing.T, runtime string) map[string]string {
	t.Helper()
	id := "pid-" + runtime[strings.LastIndex(runtime, "containerd.")+len("containerd."):]
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "kept"), []byte("in the volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	shared.CtrOK(t, "run", "--runtime", runtime, "--detach", "--hostname", "inner", "--user", "1234:56",
		"--mount", "type=bind,src="+volume+",dst=/srv/data,options=rbind:ro",
		harness.ImageName, id, "/bin/sh", "-c", "sleep 3600 & wait")
	defer shared.CtrOK(t, "containers", "rm", id)
	defer shared.Ctr(t, "task", "rm", "--force", id)
	harness.Until(t, "its child, which has executed its program", func() bool {
		out, _ := exec.CommandContext(t.Context(), "ps", "-o", "comm=", "-p", strings.Join(pidsOf(t, id), ",")).Output()
		return len(strings.Fields(string(out))) == 2 && strings.Contains(string(out), "sleep")
	})
	pid := pidOf(t, id)
	root := fmt.Sprintf("/proc/%d/root", pid)
	got := map[string]string{}
	do := func(name string, args ...string) {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		got[name] = strings.ReplaceAll(fmt.Sprintf("%s%v", out, err), strconv.Itoa(pid), "PID")
	}
	do("files", "ls", root, root+"/bin", root+"/srv")
	do("volume", "cat", root+"/srv/data/kept")
	do("write to the volume", "touch", root+"/srv/data/new")
	do("write to the root", "sh", "-c", "echo made outside >"+root+"/made")
	do("entered", "nsenter", "-t", strconv.Itoa(pid), "-m", "-n", "-u", "-i", "/bin/sh", "-c",
		"hostname; cat /srv/data/kept; ls /etc; cat /made")
	do("network", "nsenter", "-t", strconv.Itoa(pid), "-n", "ls", "/proc/self/net")
	do("interfaces", "sh", "-c", "cut -d: -f1 /proc/"+strconv.Itoa(pid)+"/net/dev")
	do("ps", "ps", "-o", "uid=,gid=,comm=,args=", "-p", strconv.Itoa(pid))
	do("children", "ps", "-o", "uid=,comm=,args=", "-p", strings.Join(pidsOf(t, id), ","))
	do("capabilities", "sh", "-c", "grep CapEff /proc/"+strconv.Itoa(pid)+"/status")
	got["made outside"] = shared.CtrOK(t, "task", "exec", "--exec-id", "e", id, "cat", "/made")
	got["listed"] = strconv.FormatBool(strings.Contains(strings.Join(pidsOf(t, id), " "), strconv.Itoa(pid)))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	harness.Until(t, "the end of "+id, func() bool {
		return strings.Contains(shared.CtrOK(t, "task", "ls"), "STOPPED")
	})
	got["after SIGKILL"] = exitOf(t, id)
	got["pid afterwards"] = strconv.FormatBool(errors.Is(syscall.Kill(pid, 0), syscall.ESRCH))
	return got
}

// pidOf is the pid of a task.
func pidOf(t *testing.T, id string) int {
	t.Helper()
	for line := range strings.Lines(shared.CtrOK(t, "task", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no task %s", id)
	return 0
}

// pidsOf are the pids of the processes of a task.
func pidsOf(t *testing.T, id string) []string {
	t.Helper()
	return regexp.MustCompile(`(?m)^\d+`).FindAllString(shared.CtrOK(t, "task", "ps", id), -1)
}

// TestSignalToThePID of a container or an exec is one to the process in the guest.
func TestSignalToThePID(t *testing.T) {
	shared.Watch(t)
	const id = "signalled"
	shared.CtrOK(t, "run", "--detach", harness.ImageName, id, "/bin/sh", "-c", `trap "exit 7" TERM; echo >/ready; while :; do sleep 0.1; done`)
	defer shared.CtrOK(t, "containers", "rm", id)
	harness.Until(t, "its trap", func() bool {
		return shared.Ctr(t, "task", "exec", "--exec-id", "ready", id, "test", "-e", "/ready").Code == 0
	})
	if err := syscall.Kill(pidOf(t, id), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the end of "+id, func() bool {
		return strings.Contains(shared.CtrOK(t, "task", "ls"), "STOPPED")
	})
	if got := exitOf(t, id); got != "7" {
		t.Errorf("exit status %q, want that of its trap", got)
	}
}

// exitOf deletes a task that has ended and returns its exit status.
func exitOf(t *testing.T, id string) string {
	t.Helper()
	r := shared.Ctr(t, "task", "rm", id)
	if found := regexp.MustCompile(`exit code (\d+)`).FindStringSubmatch(r.Stdout + r.Stderr); found != nil {
		return found[1]
	}
	return fmt.Sprintf("%+v", r)
}
