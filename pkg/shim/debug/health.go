package debug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/resident"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Heartbeat is how often the parts of a sandbox are asked for a sign of life, and how long
// each may take. The zero value asks for none.
type Heartbeat struct {
	Every, Limit time.Duration
	// EndAfter is how long a sandbox may be ill before its VM is ended; 0 is for ever.
	EndAfter time.Duration
}

// DefaultHeartbeat notices within half a minute. One beat costs a guest a message.
var DefaultHeartbeat = Heartbeat{Every: 20 * time.Second, Limit: 10 * time.Second}

// errHung is why a VM has ended that did not answer, where the configuration has it end.
var errHung = errors.New("the sandbox was ended because it did not answer")

// health is what the last heartbeat has found.
type health struct {
	mu    sync.Mutex // guards what follows
	ill   string     // why the sandbox is not healthy; "" when it is
	since time.Time  // when that has changed last
	at    time.Time  // when all parts have answered last
	guest *debugapi.Guest
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
	if changed {
		h.since = time.Now()
	}
	h.ill = ill
	return changed
}

// illFor is for how long the sandbox has not been healthy.
func (h *health) illFor() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ill == "" {
		return 0
	}
	return time.Since(h.since)
}

// endHung ends the VM of a sandbox that is not healthy, as the configuration has it.
func (s *Service) endHung(ctx context.Context, ill string) {
	cause := fmt.Errorf("%w for %s ([health] end_after): %s", errHung, s.opts.Heartbeat.EndAfter, ill)
	log.G(ctx).WithField("sandbox", s.opts.Sandbox.ID()).WithField("cause", ill).Error("sandbox ended because it is not healthy")
	s.opts.Machine.Kill(ctx, cause)
}

// watch asks for signs of life until ctx ends. What changes is an event, and a line in the log.
func (s *Service) watch(ctx context.Context, dir string) {
	ticker := time.NewTicker(s.opts.Heartbeat.Every)
	defer ticker.Stop()
	var trimmer resident.Trimmer
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		ill, asked := s.beat(ctx, store.Open(dir))
		// Of an idle pod, what requests have needed is most of what it would keep.
		if err := trimmer.Tick(); err != nil {
			log.G(ctx).WithError(err).Debug("the shim keeps memory that it does not need")
		}
		if !asked || ctx.Err() != nil { // what was found last is as true as it was
			continue
		}
		changed := s.health.set(ill)
		if since := s.health.illFor(); s.opts.Heartbeat.EndAfter > 0 && since >= s.opts.Heartbeat.EndAfter {
			s.endHung(ctx, ill)
		}
		if !changed {
			continue
		}
		entry := log.G(ctx).WithField("sandbox", s.opts.Sandbox.ID())
		if ill == "" {
			s.opts.History.Note("healthy", "all parts answer again")
			entry.Info("sandbox healthy again")
			continue
		}
		words := lastWords(s.opts.Machine.Report())
		s.opts.History.Note("unhealthy", ill+words)
		entry.WithField("cause", printable.Line(ill+words, printable.MaxText)).Error("sandbox not healthy")
	}
}

// lastLines is how many lines of the console the event about a sandbox that is not healthy has.
const lastLines = 5

// lastWords are the last lines of the guest's console, where a kernel says that it is stuck.
func lastWords(report podvm.Report) string {
	o, ok := report.VM.(hypervisor.Observable)
	if !ok {
		return ""
	}
	lines, _ := o.Console().From(0)
	var words strings.Builder
	for i, l := range lines[max(0, len(lines)-lastLines):] {
		words.WriteString([]string{"; last console lines: ", " | "}[min(i, 1)] + l.Text)
	}
	return words.String()
}

// beat asks the VMM and the guest. It returns which part does not answer and why, as far
// as that is known; "" when all do. asked is false when none can be expected to.
func (s *Service) beat(ctx context.Context, dir store.Dir) (ill string, asked bool) {
	report := s.opts.Machine.Report()
	if !answers(report) {
		return "", false
	}
	silent := s.silent(ctx, report)
	if silent != "" && !answers(s.opts.Machine.Report()) { // meanwhile
		return "", false
	}
	causes := stoppedProcesses(dir)
	if silent != "" {
		causes = append([]string{silent}, causes...)
	}
	return printable.Line(strings.Join(causes, "; "), printable.MaxText), true
}

// answers reports whether an answer can be expected of a machine.
func answers(r podvm.Report) bool { return r.Guest != nil && !r.Paused && r.Lost == nil }

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
	if err := s.greet(bounded, report.Guest); err != nil {
		return fmt.Sprintf("the guest's agent does not answer (within %s): %v", s.opts.Heartbeat.Limit, err)
	}
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.at = time.Now()
	return ""
}

// greet asks the guest how it is, which is one message unless it cannot tell. A guest that has too much to do has
// answered; one that fails to tell about itself can still answer.
func (s *Service) greet(ctx context.Context, guest client.Guest) error {
	if inspector, ok := guest.(Inspector); ok {
		g, err := inspector.GuestInfo(ctx)
		switch {
		case err == nil:
			s.health.mu.Lock()
			defer s.health.mu.Unlock()
			s.health.guest = guestOf(guest.Dialect().String(), g)
			return nil
		case errdefs.IsResourceExhausted(err):
			return nil
		case ctx.Err() != nil:
			return err
		}
		log.G(ctx).WithError(printable.Error(err, printable.MaxText)).WithField("sandbox", s.opts.Sandbox.ID()).Debug("the guest cannot tell about itself")
	}
	if err := guest.Sync(ctx); !errdefs.IsResourceExhausted(err) {
		return err
	}
	return nil
}

// stoppedProcesses are those of a sandbox that a signal has stopped.
func stoppedProcesses(dir store.Dir) (stopped []string) {
	record, err := dir.Load()
	if err != nil {
		return nil // it is being removed
	}
	for _, p := range record.Processes {
		pid := p.PID
		if p.Name == virtiofsd {
			pid = serving(pid)
		}
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue // it has ended, which others notice
		}
		after := b[bytes.LastIndexByte(b, ')')+1:]
		if bytes.HasPrefix(after, []byte(" T")) {
			stopped = append(stopped, fmt.Sprintf("%s (pid %d) is stopped by a signal", p.Name, pid))
		}
	}
	return stopped
}

// virtiofsd is the name of that process in the record.
const virtiofsd = "virtiofsd"

// serving is the process of a virtiofsd that answers the guest: its child, which has the namespaces. The
// parent only waits for that. One without a child does it itself.
func serving(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return pid
	}
	for field := range strings.FieldsSeq(string(b)) {
		if child, err := strconv.Atoi(field); err == nil {
			return child
		}
	}
	return pid
}
