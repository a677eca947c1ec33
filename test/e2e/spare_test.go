//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// spares configures a pool with a VM for a test, and makes it. At the end the pool is
// removed.
func spares(t *testing.T, background bool) {
	t.Helper()
	sparesOf(t, background, "")
}

// sparesOf is spares with an argument of the guest's kernel.
func sparesOf(t *testing.T, background bool, kernelArg string) {
	t.Helper()
	dir := templates(t, false)
	shared.Configure(t, func(s *harness.Settings) {
		s.Templates, s.NoTemplates, s.Background, s.Spare, s.KernelArg = dir, false, background, 1, kernelArg
	})
	t.Cleanup(func() {
		harness.Until(t, "the end of what makes spare VMs", func() bool { return len(makersOf(t)) == 0 })
		if err := removeSpares(t); err != nil {
			t.Error(err)
		}
	})
	if out, err := ccv2(t, "template", "build"); err != nil || strings.Count(out, "  a spare VM, pid ") != 1 {
		t.Fatalf("%v: %s", err, out)
	}
}

// removeSpares ends the spare VMs, which are of this test's templates alone.
func removeSpares(t *testing.T) error {
	t.Helper()
	if out, err := ccv2(t, "template", "remove", "-all"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	_, err := os.Stat(filepath.Join(shared.StateDir(), ".spare"))
	if err == nil {
		return errors.New("the pool is left")
	}
	err = nil
	if pids := spareVMMs(t); len(pids) > 0 {
		err = fmt.Errorf("VMMs of spare VMs live: %v", pids)
	}
	if pids := waitersOf(t); len(pids) > 0 {
		err = errors.Join(err, fmt.Errorf("processes wait for spare VMs: %v", pids))
	}
	return err
}

// makersOf are the processes that make spare VMs of this test's host.
func makersOf(t *testing.T) (pids []int) {
	t.Helper()
	for _, maker := range shared.Makers() {
		pids = append(pids, maker.PID)
	}
	return pids
}

// spareVMMs are the processes of VMs that were started as spare ones of this test's host, those of pods included.
func spareVMMs(t *testing.T) []int {
	t.Helper()
	return processesWith(t, func(args []string) bool {
		return slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, shared.StateDir()+"/.spare/") })
	})
}

func processesWith(t *testing.T, match func(args []string) bool) (pids []int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !match(strings.Split(string(line), "\x00")) {
			continue // it has ended
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// spareReady waits until one is ready, and returns the pid of its VMM.
func spareReady(t *testing.T) (pid int) {
	t.Helper()
	harness.Until(t, "a spare VM", func() bool {
		out, err := ccv2(t, "template", "list")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, after, found := strings.Cut(out, "has a spare VM, pid ")
		if found {
			_, err = fmt.Sscanf(after, "%d", &pid)
		}
		return found && err == nil
	})
	return pid
}

// TestSpare: pods get the VMs that were made for them, which are replaced, and have random
// numbers, addresses and secrets of their own, and the host's time.
func TestSpare(t *testing.T) {
	spares(t, true)
	mount := withClone(t)
	c := &clones{seen: map[string]string{}, isns: map[string][3]isn{}}
	for i := range 3 {
		pid, id, before := spareReady(t), fmt.Sprintf("spare%d", i), time.Now().Unix()
		c.add(t, id, from(t, "spare", id, append(slices.Clone(mount), "sh", "-c", cloneScript)...), before)
		harness.Until(t, "the end of the VM", func() bool { return unix.Kill(pid, 0) != nil })
	}
	c.wantSecrets(t)
	spareReady(t)
	if out, _ := ccv2(t, "check"); !strings.Contains(out, "1 spare VMs are ready ([template] spare = 1, spare_idle = 30m0s)") {
		t.Errorf("ccv2 check says nothing of it:\n%s", out)
	}
}

// TestSpareNetwork: of the interface that the guest of a spare VM had before there was a pod nothing is left.
func TestSpareNetwork(t *testing.T) {
	const script = `cd /proc/net && ls /sys/class/net /sys/bus/pci/devices /proc/sys/net/ipv4/conf && cat route arp fib_trie if_inet6 ipv6_route`
	spares(t, false)
	spare := from(t, "spare", "spare-network", "sh", "-c", script)
	if template := from(t, "template", "template-network", "sh", "-c", script); spare != template {
		t.Errorf("a spare VM has\n%s\nand one from the template\n%s", spare, template)
	}
}

// TestSparePlace: the VMM is in the pod's cgroup, with the priority of any other, in no
// network but its own, and the kernel ends it before the shim.
func TestSparePlace(t *testing.T) {
	spares(t, false)
	pid := spareReady(t)
	if got := memoryGroup(t, pid); got != "/ccv2-spare" && got != "/ccv2-spare.scope" {
		t.Errorf("the memory of a spare VM counts for %s", got)
	}
	task := shared.Running(t, "place", harness.Streams{}, []string{"/bin/sleep", "1000000"})
	if got := sources(shared.Log())["place"]; got != "spare" {
		t.Fatalf("the VM is from %q", got)
	}
	shim := shared.Find(harness.Shim, "place")[0].PID
	read := func(pid int, name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got, want := read(pid, "cgroup"), read(shim, "cgroup"); got != want {
		t.Errorf("the VMM is in\n%s\nwant, as the shim,\n%s", got, want)
	}
	if got := strings.Count(read(pid, "net/dev"), ":"); got != 1 {
		t.Errorf("the VMM has %d interfaces, want its loopback alone:\n%s", got, read(pid, "net/dev"))
	}
	for _, tid := range entries(t, fmt.Sprintf("/proc/%d/task", pid)) {
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, tid); got != 20 || err != nil { // 20 less the nice value
			t.Errorf("thread %d has the nice value %d, %v", tid, 20-got, err)
		}
	}
	var ofVMM, ofShim int
	for pid, score := range map[int]*int{pid: &ofVMM, shim: &ofShim} {
		if _, err := fmt.Sscan(read(pid, "oom_score_adj"), score); err != nil {
			t.Fatal(err)
		}
	}
	if ofVMM <= ofShim || ofVMM == 1000 {
		t.Errorf("the VMM's score is %d, the shim's %d", ofVMM, ofShim)
	}
	if out, status := shared.Output(t, task, "more", "echo", "runs"); out != "runs\n" || status != 0 {
		t.Errorf("%q, %d", out, status)
	}
	// One that has died is no pod's.
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	next := spareReady(t)
	if err := unix.Kill(next, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	from(t, "template", "after", "true")
}

// memoryGroup is the cgroup for which the memory of a process counts.
func memoryGroup(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if slices.Contains(strings.Split(parts[1], ","), "memory") {
			return parts[2]
		}
		if parts[1] == "" {
			unified = parts[2]
		}
	}
	return unified
}

// TestSpareRemoveWhileMade: those that wait end, and so does who makes one.
func TestSpareRemoveWhileMade(t *testing.T) {
	spares(t, false)
	shared.Configure(t, func(s *harness.Settings) { s.NoTemplates, s.Background, s.Spare = false, true, 3 })
	shared.CtrOK(t, "run", "--rm", harness.ImageName, "makes", "true")
	harness.Until(t, "a VM that is made", func() bool { return len(makersOf(t)) > 0 && len(spareVMMs(t)) > 0 })
	if out, err := ccv2(t, "template", "remove", "-spare"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if makers, vmms := makersOf(t), spareVMMs(t); len(makers) > 0 || len(vmms) > 0 {
		t.Errorf("makers %v and VMMs %v are left", makers, vmms)
	}
}

// entries are the numbers that a directory has.
func entries(t *testing.T, dir string) (all []int) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// TestSpareShimKilled: nothing is left of a VM whose shim, which is not its parent, is killed.
func TestSpareShimKilled(t *testing.T) {
	spares(t, false)
	pid := spareReady(t)
	shared.Running(t, "killed", harness.Streams{}, []string{"/bin/sleep", "1000000"})
	if err := unix.Kill(shared.Find(harness.Shim, "killed")[0].PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the end of the VM", func() bool { return unix.Kill(pid, 0) != nil })
}

// TestSpareMakerKilled: whatever a maker has made when it is killed, gc ends what is no VM that a
// pod can have, and nothing of one that has.
func TestSpareMakerKilled(t *testing.T) {
	spares(t, false)
	task := shared.Running(t, "lives", harness.Streams{}, []string{"/bin/sleep", "1000000"})
	if got := sources(shared.Log())["lives"]; got != "spare" {
		t.Fatalf("the VM is from %q", got)
	}
	shared.Configure(t, func(s *harness.Settings) { s.NoTemplates, s.Background, s.Spare = false, true, 2 })
	for i := range 4 {
		shared.CtrOK(t, "run", "--rm", harness.ImageName, fmt.Sprintf("makes%d", i), "true")
		if i > 0 { // at another time each
			harness.Until(t, "VM that is made", func() bool { return len(spareVMMs(t)) > 1+i/2 || len(makersOf(t)) == 0 })
		}
		for _, pid := range makersOf(t) {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
			harness.Until(t, "end of the maker", func() bool { return unix.Kill(pid, 0) != nil })
		}
		if out, err := ccv2(t, "gc", "--remove"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := ccv2(t, "template", "list")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if pids, ready := spareVMMs(t), strings.Count(out, "has a spare VM"); len(pids) != 1+ready {
			t.Errorf("%d VMMs %v, one of them the pod's, and %d spare VMs", len(pids), pids, ready)
		}
	}
	if out, status := shared.Output(t, task, "more", "echo", "runs"); out != "runs\n" || status != 0 {
		t.Errorf("%q, %d", out, status)
	}
}
