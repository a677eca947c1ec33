package debug

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Heartbeat is how often the parts of a sandbox are asked for a sign of life, and how long
// each may take. The zero value asks for none.
type Heartbeat struct{ Every, Limit time.Duration }

// DefaultHeartbeat notices within half a minute. One beat costs a guest a message.
var DefaultHeartbeat = Heartbeat{Every: 20 * time.Second, Limit: 10 * time.Second}

// health is what the last heartbeat has found.
type health struct {
	mu  sync.Mutex // guards ill
	ill string     // why the sandbox is not healthy; "" when it is
}

func (h *health) get() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ill
}

// set notes a finding, and reports whether it is another one than before.
func (h *health) set(ill string) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = (h.ill == "") != (ill == "")
	h.ill = ill
	return changed
}

// watch asks for signs of life until ctx ends. What changes is an event, and a line in the log.
func (s *Service) watch(ctx context.Context, dir string) {
	ticker := time.NewTicker(s.opts.Heartbeat.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		ill := s.beat(ctx, store.Open(dir))
		debug.FreeOSMemory() // of an idle pod, what a request has needed is most of what it would keep
		if ctx.Err() != nil || !s.health.set(ill) {
			continue
		}
		entry := log.G(ctx).WithField("sandbox", s.opts.Sandbox.ID())
		if ill == "" {
			s.opts.History.Note("healthy", "all parts answer again")
			entry.Info("sandbox healthy again")
			continue
		}
		s.opts.History.Note("unhealthy", ill)
		entry.WithField("cause", ill).Error("sandbox not healthy")
	}
}

// beat asks the VMM and the guest. It returns which part does not answer and why, as far
// as that is known; "" when all do, or none can be expected to.
func (s *Service) beat(ctx context.Context, dir store.Dir) string {
	report := s.opts.Machine.Report()
	if report.Guest == nil || report.Paused || report.Lost != nil {
		return ""
	}
	silent := s.silent(ctx, report)
	if silent != "" && s.opts.Machine.Report().Paused { // meanwhile
		return ""
	}
	causes := stoppedProcesses(dir)
	if silent != "" {
		causes = append([]string{silent}, causes...)
	}
	return printable.Line(strings.Join(causes, "; "), printable.MaxText)
}

// silent names the part that does not answer in time.
func (s *Service) silent(ctx context.Context, report podvm.Report) string {
	if o, ok := report.VM.(hypervisor.Observable); ok {
		bounded, cancel := context.WithTimeout(ctx, s.opts.Heartbeat.Limit)
		_, err := o.Status(bounded)
		cancel()
		if err != nil {
			return fmt.Sprintf("the vmm does not answer (within %s): %v", s.opts.Heartbeat.Limit, err)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, s.opts.Heartbeat.Limit)
	defer cancel()
	if err := report.Guest.Sync(bounded); err != nil {
		return fmt.Sprintf("the guest's agent does not answer (within %s): %v", s.opts.Heartbeat.Limit, err)
	}
	return ""
}

// stoppedProcesses are those of a sandbox that a signal has stopped.
func stoppedProcesses(dir store.Dir) (stopped []string) {
	record, err := dir.Load()
	if err != nil {
		return nil // it is being removed
	}
	for _, p := range record.Processes {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/stat")
		if err != nil {
			continue // it has ended, which others notice
		}
		_, after, _ := strings.Cut(string(b), ") ")
		if strings.HasPrefix(after, "T") {
			stopped = append(stopped, fmt.Sprintf("%s (pid %d) is stopped by a signal", p.Name, p.PID))
		}
	}
	return stopped
}
