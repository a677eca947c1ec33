//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

const (
	// shimMemory bounds in bytes the resident memory that a shim ever has,
	// whatever its guest does. The worst that is lawful is control messages of
	// the greatest size without end: a few of those at 4 MiB, read and decoded,
	// until the collector runs, on top of the shim's own 11 MiB.
	shimMemory = 64 << 20
	// floodSize is how many bytes of a flood a shim must have read before it is
	// believed to withstand it: more than it may have memory.
	floodSize = shimMemory * 3 / 2
)

// TestHostileGuest boots guests that break the protocol (./cmd/hostile). Each
// ends its pod with an error that says what the guest did; what is a flood of
// lawful messages is withstood. Nobody's memory grows, and nothing is left.
func TestHostileGuest(t *testing.T) {
	image := hostileImage(t)
	for _, tt := range []struct {
		mode string // see ./cmd/hostile
		want string // in the error
	}{
		{"garbage", "ctl message 2779096485: length above the limit (2779096485 bytes)"},
		{"never-ready", "boot_timeout"},
		{"huge-length", "ctl message 8: length above the limit (4294967295 bytes)"},
		{"short-length", "ctl message 8: length below the header length (4 bytes)"},
		{"unknown-code", "guest sent CODE(999)"},
		{"unasked-ack", "guest sent a reply to no command"},
		{"ready-twice", "guest sent READY twice"},
		{"wrong-version", "guest speaks version 2000099"},
	} {
		t.Run("Boot/"+tt.mode, func(t *testing.T) {
			h := newHostile(t, image, tt.mode)
			got := shared.Ctr(t, "run", "--rm", harness.ImageName, h.id, "true")
			wantFailure(t, got, []string{"boot sandbox", "guest not ready", tt.want})
			h.wantBounded(t)
		})
	}
	for _, tt := range []struct{ mode, want string }{
		{"unknown-stream", "guest sent 65536 bytes on stream 1099511627776, which no process has had"},
		{"beyond-credit", "are granted"},
		{"huge-output", "length above the limit (4294967295 bytes)"},
		{"unasked-result", "guest sent a reply to no command"},
		{"malformed-event", "guest sent a malformed EVENT"},
		{"output-after-end", "after its end"},
	} {
		t.Run("Running/"+tt.mode, func(t *testing.T) { breach(t, newHostile(t, image, tt.mode), tt.want) })
	}
	t.Run("Refusal/rude-error", func(t *testing.T) { rudeError(t, newHostile(t, image, "rude-error")) })
	for _, tt := range []struct {
		mode   string
		status uint32
	}{
		{"credit-flood", 137},
		{"event-flood", 137}, // it does not end its container, so the shim ends the VM
	} {
		t.Run("Lawful/"+tt.mode, func(t *testing.T) { withstand(t, newHostile(t, image, tt.mode), tt.status) })
	}
}

// breach wants the pod to end, and the log to say why.
func breach(t *testing.T, h *hostile, want string) {
	t.Helper()
	begin := len(shared.Log())
	// Nothing reads the output, so what arrives is held, and no credit is given.
	events, full := shared.Record(t), make(stuck)
	task := shared.Running(t, h.id, harness.Streams{Stdout: full}, []string{"true"})
	h.provoke(t, task)
	if e := events.Await(t, "exit", h.id, ""); e.Status == 0 {
		t.Errorf("exit event %s", e)
	}
	harness.Until(t, fmt.Sprintf("log of a lost sandbox that says %q", want), func() bool {
		for line := range strings.Lines(shared.Log()[begin:]) {
			if strings.Contains(line, "sandbox lost") && strings.Contains(line, want) {
				return true
			}
		}
		return false
	})
	h.wantBounded(t)
	close(full)
	if status := shared.Finish(t, task); status == 0 {
		t.Error("exit status 0")
	}
}

// withstand wants the shim to outlive a flood that breaks no rule.
func withstand(t *testing.T, h *hostile, want uint32) {
	t.Helper()
	task := shared.Running(t, h.id, harness.Streams{}, []string{"true"})
	h.provoke(t, task)
	shim := shared.AwaitProcess(t, harness.Shim, h.id)
	harness.Until(t, "flood", func() bool { return bytesRead(t, shim) > floodSize })
	if status, err := task.Status(shared.Context()); err != nil || status.Status != client.Running {
		t.Errorf("status %v, %v", status, err)
	}
	if status := shared.KillTask(t, task); status != want {
		t.Errorf("exit status %d, want %d", status, want)
	}
	h.wantBounded(t)
}

// stuck is a writer that takes nothing until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// hostileImage puts the hostile init over the one of the image under test.
func hostileImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	init := filepath.Join(dir, "hostile")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", init, "./cmd/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hostile: %v\n%s", err, out)
	}
	image, err := os.ReadFile(shared.Image)
	if err != nil {
		t.Fatal(err)
	}
	over, err := os.ReadFile(harness.Initrd(t, filepath.Join(dir, "over"), init))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd.img") // the kernel unpacks one archive after the other
	if err := os.WriteFile(path, append(image, over...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hostile is a sandbox whose guest is.
type hostile struct {
	id   string
	stop chan struct{}
	peak chan int64 // of the shim's resident memory in bytes, once stop is closed
}

// newHostile configures the guest of the test and watches the memory of its shim.
func newHostile(t *testing.T, image, mode string) *hostile {
	t.Helper()
	shared.Watch(t)
	shared.Configure(t, func(s *harness.Settings) {
		// Under emulation both times are multiplied by six. Only one guest makes
		// use of each: the others were found out long before.
		bootTimeout, callTimeout := s.BootTimeout, "10s"
		switch mode {
		case "never-ready":
			bootTimeout = "1s"
		case "event-flood":
			callTimeout = "1s"
		}
		s.Raw = fmt.Sprintf(`state_dir = %q
[hypervisor]
path = %q
[guest]
kernel = %q
image = %q
boot_timeout = %q
call_timeout = %q
kernel_args = [%q]
[template]
enabled = false
[share]
virtiofsd = %q
`, shared.StateDir(), s.QEMU, s.Kernel, image, bootTimeout, callTimeout, "ccv2.hostile="+mode, s.VirtioFSD)
	})
	h := &hostile{id: "hostile-" + mode, stop: make(chan struct{}), peak: make(chan int64, 1)}
	go h.watch()
	return h
}

// watch notes the most memory that the shim has had until it is asked to stop.
func (h *hostile) watch() {
	var peak int64
	var shims []harness.Process
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		var now int64
		for _, shim := range shims {
			now = max(now, peakMemory(shim))
		}
		peak = max(peak, now)
		select {
		case <-h.stop:
			h.peak <- peak
			return
		case <-ticker.C:
		}
		if now == 0 { // containerd's call of the shim to start one, or none yet
			shims = shared.Find(harness.Shim, h.id)
		}
	}
}

// peakMemory is the most resident memory that a process has had, 0 when it has gone.
func peakMemory(p harness.Process) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 { // it has ended
		return 0
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// wantBounded ends the watch.
func (h *hostile) wantBounded(t *testing.T) {
	t.Helper()
	close(h.stop)
	peak := <-h.peak
	t.Logf("most memory of the shim: %.1f MiB", float64(peak)/(1<<20))
	if peak == 0 || peak > shimMemory {
		t.Errorf("the shim had %d bytes of memory, at most %d are allowed", peak, shimMemory)
	}
}

// provoke has the guest attack. Whether the call is answered is up to the guest.
func (h *hostile) provoke(t *testing.T, task client.Task) {
	t.Helper()
	if err := task.Kill(shared.Context(), unix.SIGUSR1); err != nil {
		t.Logf("provoke: %v", err)
	}
}

// bytesRead is what a process has read from files and sockets so far.
func bytesRead(t *testing.T, p harness.Process) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return n
}
