//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// waitersOf are the processes that end the spare VMs of this test's host when they have waited for too long.
func waitersOf(t *testing.T) (pids []int) {
	t.Helper()
	for _, pid := range processesWith(t, func([]string) bool { return true }) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), "CCV2_SPARE_POOL="+shared.StateDir()+"/.spare") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// emptyGroups are the directories of the cgroup in which the VMs are that no pod has, if nothing is in it. Other tests may
// have some.
func emptyGroups(t *testing.T) (all []string) {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, err := filepath.Glob(dir + "/ccv2-spare*/cgroup.procs")
		if err != nil {
			t.Fatal(err)
		}
		for _, procs := range found {
			if pids, err := os.ReadFile(procs); err == nil && len(pids) == 0 {
				all = append(all, filepath.Dir(procs))
			}
		}
	}
	return all
}

// pss is the share of some processes in the host's memory, in KiB.
func pss(t *testing.T, pids []int) (sum int) {
	t.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		var kib int
		if _, err := fmt.Sscan(after, &kib); err != nil {
			t.Fatal(err)
		}
		sum += kib
	}
	return sum
}

// TestSpareIdle: a VM that no pod takes ends, though nothing of ccv2 runs, and who has waited for that with it. One that
// a pod has taken does not.
func TestSpareIdle(t *testing.T) {
	spares(t, false)
	pid := spareReady(t)
	harness.Until(t, "a process that waits", func() bool { return len(waitersOf(t)) == 2 })
	waiters := waitersOf(t)
	if got := pss(t, waiters); got > 1024 {
		t.Errorf("they take %d KiB", got)
	}
	for _, waiter := range waiters {
		if got, want := memoryGroup(t, waiter), memoryGroup(t, pid); got != want {
			t.Errorf("it is in %s, the VM in %s", got, want)
		}
	}
	task := shared.Running(t, "takes", harness.Streams{}, []string{"/bin/sleep", "1000000"})
	if got := sources(shared.Log())["takes"]; got != "spare" {
		t.Fatalf("the VM is from %q", got)
	}
	shared.Configure(t, func(s *harness.Settings) { s.NoTemplates, s.Spare, s.SpareIdle = false, 1, "1s" })
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, waiter := range waitersOf(t) {
		if slices.Contains(waiters, waiter) {
			t.Errorf("%d waits beside who has taken its place", waiter)
		}
	}
	harness.Until(t, "the end of the VM and of who has waited", func() bool { return len(spareVMMs(t)) == 1 && len(waitersOf(t)) == 0 })
	harness.Until(t, "the end of their cgroup", func() bool { return len(emptyGroups(t)) == 0 })
	if out, status := shared.Output(t, task, "more", "echo", "runs"); out != "runs\n" || status != 0 {
		t.Errorf("%q, %d", out, status)
	}
}
