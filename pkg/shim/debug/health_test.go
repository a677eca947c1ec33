package debug_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestLastWords: the event about a guest that does not answer has what its kernel has said last.
func TestLastWords(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 5 * time.Millisecond},
		"before", "watchdog: BUG: soft lockup", "CPU#0 stuck\x1b[2J")
	events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	e, err := events.Recv()
	if err != nil || e.GetKind() != "unhealthy" || !strings.HasSuffix(e.GetText(), "; last console lines: before | watchdog: BUG: soft lockup | CPU#0 stuck?[2J") {
		t.Errorf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; strings.Contains(ill, "lockup") {
		t.Errorf("ps would say %q", ill)
	}
}

// TestHungEnds: where the configuration says so, what does not answer is ended.
func TestHungEnds(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 5 * time.Millisecond, EndAfter: 50 * time.Millisecond})
	f.start(t, "pod", "wait")
	select {
	case <-f.machine.Lost():
	case <-t.Context().Done():
		t.Fatal("it stays")
	}
	if cause := f.machine.Err(); cause == nil || !strings.Contains(cause.Error(), "because it did not answer for 50ms ([health] end_after): the vmm does not answer") {
		t.Errorf("cause %v", cause)
	}
}

// TestHealth: a VMM that does not answer is an event, once, and so is that it does again.
func TestHealth(t *testing.T) {
	f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 20 * time.Millisecond})
	events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	e, err := events.Recv()
	if err != nil || e.GetKind() != "unhealthy" || !strings.Contains(e.GetText(), "the vmm does not answer (within 20ms)") {
		t.Fatalf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; ill != e.GetText() {
		t.Errorf("info says %q", ill)
	}
	close(f.answers)
	if e, err := events.Recv(); err != nil || e.GetKind() != "healthy" {
		t.Fatalf("got %v, %v", e, err)
	}
	if ill := f.info(t, false).Unhealthy; ill != "" {
		t.Errorf("info says %q", ill)
	}
}

// TestHealthNotAsked: a VM that is paused, dead or without a guest is not taken for one that answers again.
func TestHealthNotAsked(t *testing.T) {
	for name, edit := range map[string]func(*podvm.Report){
		"paused":   func(r *podvm.Report) { r.Paused = true },
		"lost":     func(r *podvm.Report) { r.Lost = errors.New("it died") },
		"no guest": func(r *podvm.Report) { r.Guest = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: 5 * time.Millisecond})
			events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			if e, err := events.Recv(); err != nil || e.GetKind() != "unhealthy" {
				t.Fatalf("got %v, %v", e, err)
			}
			f.machine.edit(edit)
			for range 4 { // of one beat that had begun, and of two whole ones
				select {
				case <-f.machine.reported:
				case <-t.Context().Done():
					t.Fatal("no heartbeat")
				}
			}
			f.history.Note("mark", "")
			if e, err := events.Recv(); err != nil || e.GetKind() != "mark" {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

// Sync answers even when the guest cannot tell about itself, unless it is lost.
func (g guest) Sync(context.Context) error {
	if err := g.fails.Load(); err != nil && !errors.Is(*err, errFiles) {
		return *err
	}
	return nil
}

// errFiles is the failure of a guest that has no file left.
var errFiles = errors.New("too many open files")

// TestHealthOfGuest: a guest that refuses has answered; one that cannot be reached has not.
func TestHealthOfGuest(t *testing.T) {
	for _, tt := range []struct {
		err     error
		healthy bool
	}{
		{fmt.Errorf("64 commands are running already: %w", errdefs.ErrResourceExhausted), true},
		{errFiles, true},
		{errors.New("connection lost"), false},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: time.Minute})
			f.fails.Store(&tt.err)
			close(f.answers)
			events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			if tt.healthy {
				for range 4 {
					<-f.machine.reported
				}
				f.history.Note("mark", "")
			}
			e, err := events.Recv()
			if err != nil || (e.GetKind() == "mark") != tt.healthy || !tt.healthy && !strings.Contains(e.GetText(), "agent does not answer (within 1m0s): connection lost") {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

// TestHealthOfShare: of a virtiofsd the process that serves counts, which is the child of the one that is recorded.
func TestHealthOfShare(t *testing.T) {
	for _, tt := range []struct {
		name    string
		script  string
		stop    func(parent, child int) int
		healthy bool
	}{
		{name: "the child", script: "sleep 1000 & echo $!; wait", stop: func(_, child int) int { return child }},
		{name: "the parent", script: "sleep 1000 & echo $!; wait", stop: func(parent, _ int) int { return parent }, healthy: true},
		{name: "one without a child", script: "echo 0; exec sleep 1000", stop: func(parent, _ int) int { return parent }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixtureThatBeats(t, debug.Heartbeat{Every: 5 * time.Millisecond, Limit: time.Minute})
			close(f.answers)
			events, err := f.Events(t.Context(), &debugapi.LogRequest{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			parent, child := startShare(t, tt.script)
			if err := syscall.Kill(tt.stop(parent, child), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			awaitStopped(t, tt.stop(parent, child))
			text, err := json.Marshal(store.State{Version: store.Version, Namespace: "test", ID: "pod", Processes: []store.Process{{Name: "virtiofsd", PID: parent}}})
			if err == nil {
				err = os.WriteFile(filepath.Join(f.dir, "new.json"), text, 0o600)
			}
			if err == nil {
				err = os.Rename(filepath.Join(f.dir, "new.json"), filepath.Join(f.dir, "state.json"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.healthy {
				for range 4 {
					<-f.machine.reported
				}
				f.history.Note("mark", "")
			}
			want := fmt.Sprintf("virtiofsd (pid %d) is stopped by a signal", tt.stop(parent, child))
			if e, err := events.Recv(); err != nil || (e.GetKind() == "mark") != tt.healthy || !tt.healthy && e.GetText() != want {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

// startShare starts a process that writes the pid of its child.
func startShare(t *testing.T, script string) (parent, child int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
	})
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, child
}

// awaitStopped waits until a signal has stopped a process.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for t.Context().Err() == nil {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), ") T ") {
			return
		}
		runtime.Gosched()
	}
}
