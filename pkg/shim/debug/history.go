package debug

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// maxEvents bounds what is kept of the past.
const maxEvents = 256

// History is the events of a sandbox, the last ones. It is safe for concurrent use.
type History struct {
	log     *history.Log[event]
	journal journal

	mu   sync.Mutex        // held while an event is added; guards seen
	seen map[string]uint64 // how many there were of each kind, which code names
}

// event is one of them; smaller than an entry of the protocol.
type event struct {
	at                             int64
	kind, container, process, text string
	status                         uint32
}

// NewHistory returns one without events.
func NewHistory() *History {
	return &History{log: history.New[event](maxEvents), seen: make(map[string]uint64)}
}

// Note adds what is no event of the sandbox's own.
func (h *History) Note(kind, text string) {
	h.add(event{kind: kind, text: printable.Line(text, printable.MaxText)})
}

func (h *History) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.at = time.Now().UnixNano()
	h.log.Add(e)
	h.seen[e.kind]++
	h.journal.add(e, h.all)
}

// all are the events that there are.
func (h *History) all() []event {
	events, _ := h.log.From(0)
	return events
}

// counts are how many there were of each kind.
func (h *History) counts() map[string]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.seen)
}

// keep begins to keep the events on disk as well.
func (h *History) keep(dir store.Dir) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.journal.open(dir, h.all())
}

// Publish implements [sandbox.Sink].
func (h *History) Publish(e sandbox.Event) {
	switch e := e.(type) {
	case sandbox.TaskCreated:
		h.add(event{kind: "create", container: e.Container.ID, text: pid(e.PID)})
	case sandbox.TaskStarted:
		h.add(event{kind: "start", container: e.ContainerID, text: pid(e.PID)})
	case sandbox.ExecAdded:
		h.add(event{kind: "exec", container: e.ContainerID, process: e.ExecID})
	case sandbox.ExecStarted:
		h.add(event{kind: "exec-start", container: e.ContainerID, process: e.ExecID, text: pid(e.PID)})
	case sandbox.TaskExited:
		h.add(event{kind: "exit", container: e.ContainerID, process: e.ExecID, status: e.Status, text: exitText(e.Status)})
	case sandbox.TaskDeleted:
		h.add(event{kind: "delete", container: e.ContainerID, status: e.Status})
	case sandbox.TaskPaused:
		h.add(event{kind: "pause", container: e.ContainerID})
	case sandbox.TaskResumed:
		h.add(event{kind: "resume", container: e.ContainerID})
	case sandbox.TaskOOM:
		h.add(event{kind: "oom", container: e.ContainerID, text: "a process was killed, out of memory"})
	}
}

func pid(pid int) string { return fmt.Sprintf("pid %d on the host", pid) }

// exitText says what a status means, as a shell has it.
func exitText(status uint32) string {
	const signalled, unknown = 128, 255
	switch {
	case status == unknown:
		return "status 255: its own, or it was lost with the vm"
	case status > signalled:
		return fmt.Sprintf("status %d: signal %d", status, status-signalled)
	}
	return fmt.Sprintf("status %d", status)
}

// entry is the event as the protocol has it.
func (e event) entry() *debugapi.Entry {
	return &debugapi.Entry{Time: e.at, Kind: e.kind, Container: e.container, Process: e.process, Status: e.status, Text: e.text}
}
