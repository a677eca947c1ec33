package hostproc

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary the process of a test.
const helperEnv = "CCV2_TEST_HOSTPROC_HELPER"

// TestHelperEndFirstThread is not a test: it ends the first thread of the
// process, which then looks like a zombie although its other threads run.
func TestHelperEndFirstThread(*testing.T) {
	if os.Getenv(helperEnv) == "" {
		return
	}
	for { // until a goroutine happens to run on the first thread
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
		runtime.Gosched()
		if _, zombie, err := stat(os.Getpid()); err == nil && zombie {
			select {}
		}
	}
}

func TestKillWaitsForAllThreads(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestHelperEndFirstThread$")
	cmd.Env = []string{helperEnv + "=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for zombie := false; !zombie; {
		select {
		case <-tick.C:
			_, zombie, _ = stat(cmd.Process.Pid) // it exists until it is waited for
		case <-ctx.Done():
			t.Fatal("the first thread did not end")
		}
	}
	p, err := Of("helper", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	pid, err := unix.Wait4(cmd.Process.Pid, &status, unix.WNOHANG, nil)
	if err != nil || pid != cmd.Process.Pid {
		t.Errorf("wait: pid %d, %v: the process still runs after Kill", pid, err)
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait() // waited for above
}

func TestKillAnotherProcess(t *testing.T) {
	self, err := Of("self", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Start++ // the pid has changed hands since it was recorded
	if self.Alive() {
		t.Error("a process with another start time counts as alive")
	}
	if err := self.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestIsParent(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	self, err := Of("self", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	later := self
	later.Start++
	if !self.IsParent(cmd.Process.Pid) || self.IsParent(os.Getpid()) || later.IsParent(cmd.Process.Pid) {
		t.Error("the child of this very process alone is one")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if self.IsParent(cmd.Process.Pid) {
		t.Error("a child that is gone is one")
	}
}

// TestReleased: a pid of no process, which is what one that is just being released looks
// like, and a thread, is one that is gone.
func TestReleased(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := make(chan int)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // not that of the test, so that one of both is not the first
		tid <- unix.Gettid()
		<-done
	}()
	thread := <-tid
	defer close(done)
	if thread == os.Getpid() {
		thread = unix.Gettid()
	}
	p := Process{Name: "thread", PID: thread}
	if err := p.Wait(t.Context()); err != nil {
		t.Errorf("wait: %v", err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}
}
