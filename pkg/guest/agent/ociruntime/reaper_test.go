package ociruntime

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// startReaper makes the test process what PID 1 is in the guest.
func startReaper(t *testing.T) *Reaper {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r := NewReaper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { r.Run(stop); close(done) }()
	t.Cleanup(func() {
		close(stop)
		<-done
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestReaperMonitorsCommands(t *testing.T) {
	r := startReaper(t)
	for _, tt := range []struct {
		script string
		want   int
	}{{"exit 0", 0}, {"exit 42", 42}, {"kill -9 $$", 137}, {"kill -15 $$", 143}} {
		cmd := exec.Command("sh", "-c", "echo output; "+tt.script)
		var out strings.Builder
		cmd.Stdout = &out
		ch, err := r.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Wait(cmd, ch)
		if got != tt.want || err != nil || out.String() != "output\n" {
			t.Errorf("%s: got %d %v %q, want %d", tt.script, got, err, out.String(), tt.want)
		}
	}
	if _, err := r.Start(exec.Command("/nonexistent")); err == nil {
		t.Error("start of a missing program succeeded")
	}
}

// TestReaperExitWatch reaps a process before its owner asks for it, as happens to
// a short exec: its parent, the OCI runtime, has gone and has left a pid file.
func TestReaperExitWatch(t *testing.T) {
	r := startReaper(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	w := r.open()
	defer w.close()
	// The child ends after its parent has, or the parent could reap it.
	hold, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "(read line; exit 33) <&3 & echo $! > "+pidFile)
	cmd.ExtraFiles = []*os.File{hold}
	ch, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := r.Wait(cmd, ch); got != 0 {
		t.Fatalf("parent: status %d", got)
	}
	pid, err := readPid(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	release.Close()
	hold.Close()
	for unix.Kill(pid, 0) == nil {
		runtime.Gosched()
	}
	if e := <-w.claim(pid); e.Status != 33 || e.Pid != pid {
		t.Errorf("got %+v, want status 33 of %d", e, pid)
	}
	if err := r.signal(pid, unix.SIGKILL); !errors.Is(err, ErrExited) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestReaperSignals(t *testing.T) {
	r := startReaper(t)
	cmd := exec.Command("sleep", "1000")
	ch, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.signal(cmd.Process.Pid, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if got, _ := r.Wait(cmd, ch); got != 143 {
		t.Errorf("got status %d, want 143", got)
	}
	if err := r.signal(os.Getpid(), 0); !errors.Is(err, ErrExited) {
		t.Errorf("signal to a process that nobody claimed: %v", err)
	}
}
