package sandboxtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// Recorder is a sink that keeps all events, as text.
type Recorder struct {
	mu     sync.Mutex // guards events
	events []string
}

// NewRecorder returns one without events.
func NewRecorder() *Recorder { return &Recorder{} }

// Publish implements [sandbox.Sink].
func (r *Recorder) Publish(e sandbox.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, describe(e))
}

// describe names an event and its process: "c/e" is the exec e of container c.
func describe(event sandbox.Event) string {
	switch e := event.(type) {
	case sandbox.TaskCreated:
		return "created " + e.Container.ID
	case sandbox.TaskStarted:
		return "started " + e.ContainerID
	case sandbox.ExecAdded:
		return "added " + e.ContainerID + "/" + e.ExecID
	case sandbox.ExecStarted:
		return "started " + e.ContainerID + "/" + e.ExecID
	case sandbox.TaskExited:
		id := e.ContainerID
		if e.ExecID != "" {
			id += "/" + e.ExecID
		}
		return fmt.Sprintf("exited %s %d", id, e.Status)
	case sandbox.TaskDeleted:
		return "deleted " + e.ContainerID
	case sandbox.TaskPaused:
		return "paused " + e.ContainerID
	case sandbox.TaskResumed:
		return "resumed " + e.ContainerID
	case sandbox.TaskOOM:
		return "oom " + e.ContainerID
	}
	return "unknown"
}

// Events returns the events so far, such as "exited c/exec1 137".
func (r *Recorder) Events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// life is what is known of a process from its events.
type life struct {
	started, exited bool
	execs           map[string]*life // nil for an exec
}

// CheckOrder holds the events of any run to the rules: create < start < exit <
// delete; exec added < exec started < exec exit < exit of the container's init
// process; one exit for each process that was started, and never two. With all
// set the run is over, and no exit may be missing.
func CheckOrder(t testing.TB, events []string, all bool) {
	t.Helper()
	live := make(map[string]*life)
	for i, event := range events {
		if rule := step(live, event); rule != "" {
			t.Errorf("event %d, %q: %s; in %q", i, event, rule, events)
		}
	}
	for id, c := range live {
		if all && c.started && !c.exited {
			t.Errorf("%s was started and has not exited in %q", id, events)
		}
	}
}

// step takes one event and returns the rule that it breaks.
func step(live map[string]*life, event string) string {
	what, rest, _ := strings.Cut(event, " ")
	id, _, _ := strings.Cut(rest, " ") // the status of an exit comes after it
	container, exec, isExec := strings.Cut(id, "/")
	c := live[container]
	switch {
	case what == "created" && c != nil:
		return "created twice"
	case what == "created":
		live[id] = &life{execs: make(map[string]*life)}
		return ""
	case c == nil:
		return "not created, or deleted"
	case what == "deleted" && c.started && !c.exited:
		return "deleted before its exit"
	case what == "deleted":
		delete(live, id)
		return ""
	case what == "added":
		c.execs[exec] = &life{}
		return ""
	}
	p := c
	if isExec {
		if p = c.execs[exec]; p == nil {
			return "not added"
		}
	}
	return p.step(what)
}

func (p *life) step(what string) string {
	switch what {
	case "started":
		if p.started || p.exited {
			return "started twice, or after its exit"
		}
		p.started = true
	case "exited":
		if p.exited {
			return "exited twice"
		}
		if !p.started && p.execs == nil {
			return "exited before its start"
		}
		p.exited = true
		for _, e := range p.execs {
			if e.started && !e.exited {
				return "an exec exits after it"
			}
		}
	}
	return ""
}
