package task

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	tasktypes "github.com/containerd/containerd/api/types/task"
)

// model is what the task API promises about one container, "c", and its execs: small
// enough to be read beside the states of runc's shim. What that refuses and this one
// does not is marked.
type model struct {
	init   *modelProcess // nil for none
	execs  map[string]*modelProcess
	events []string
}

// modelProcess is one process. All of them end by what the test does, so that it
// knows when.
type modelProcess struct {
	program string // "wait" until a signal, "exit" at once with modelExit, or "missing"
	status  tasktypes.Status
	exit    uint32
}

const modelExit = 5

func newModel() *model { return &model{execs: make(map[string]*modelProcess)} }

func (m *model) event(format string, args ...any) {
	m.events = append(m.events, fmt.Sprintf(format, args...))
}

// find returns the class of the error that every call has which names a process
// that is not there; id is "" for the init process.
func (m *model) find(id string) (*modelProcess, string) {
	p := m.init
	if p != nil && id != "" {
		p = m.execs[id]
	}
	if p == nil {
		return nil, nf
	}
	return p, ok
}

func (m *model) create(program string) string {
	if m.init != nil {
		return ex
	}
	m.init = &modelProcess{program: program, status: tasktypes.Status_CREATED}
	m.event("created c")
	return ok
}

func (m *model) exec(id, program string) string {
	switch {
	case m.init == nil:
		return nf
	case m.execs[id] != nil:
		return ex
	}
	// With runc not where the container is paused or has ended. Here the start of it
	// is refused then.
	m.execs[id] = &modelProcess{program: program, status: tasktypes.Status_CREATED}
	m.event("added c/%s", id)
	return ok
}

func (m *model) start(id string) string {
	p, class := m.find(id)
	if class != ok {
		return class
	}
	name := strings.TrimSuffix("c/"+id, "/")
	lives := m.init.status == tasktypes.Status_CREATED || m.init.status == tasktypes.Status_RUNNING
	switch {
	case p.status != tasktypes.Status_CREATED, !lives:
		return pre
	case p.program == "missing": // there is no event of what was never started
		p.status, p.exit = tasktypes.Status_STOPPED, 127
		if id == "" {
			m.endExecs(137)
		}
		return nf
	}
	m.event("started %s", name)
	p.status = tasktypes.Status_RUNNING
	if p.program == "exit" {
		m.end(id, modelExit, 137)
	}
	return ok
}

// end ends a process, and with the init process all others, which get status others.
func (m *model) end(id string, status, others uint32) {
	if id == "" {
		m.endExecs(others)
	}
	p, _ := m.find(id)
	p.status, p.exit = tasktypes.Status_STOPPED, status
	m.event("exited %s %d", strings.TrimSuffix("c/"+id, "/"), status)
}

func (m *model) endExecs(status uint32) {
	for _, exec := range slices.Sorted(maps.Keys(m.execs)) {
		if m.execs[exec].status == tasktypes.Status_RUNNING {
			m.end(exec, status, 0)
		}
	}
}

func (m *model) kill(id string, signal uint32, all bool) string {
	p, class := m.find(id)
	switch {
	case class != ok:
		return class
	case all && id != "": // as runc's shim: kill --all is of a container
		return pre
	case p.status == tasktypes.Status_STOPPED:
		return nf
	case id != "" && p.status == tasktypes.Status_CREATED:
		return pre
	}
	others := uint32(137)
	if all {
		others = 128 + signal
	}
	m.end(id, 128+signal, others)
	return ok
}

func (m *model) remove(id string) string {
	p, class := m.find(id)
	switch {
	case class != ok:
		return class
	case p.status == tasktypes.Status_RUNNING, p.status == tasktypes.Status_PAUSED:
		return pre
	case id != "":
		delete(m.execs, id)
		return ok
	case p.status == tasktypes.Status_CREATED:
		m.end("", 137, 137)
	}
	m.init, m.execs = nil, make(map[string]*modelProcess)
	m.event("deleted c")
	return ok
}

// change is Pause and Resume.
func (m *model) change(from, to tasktypes.Status, event string) string {
	switch {
	case m.init == nil:
		return nf
	case m.init.status != from:
		return pre
	}
	m.init.status = to
	m.event("%s c", event)
	return ok
}

func (m *model) resize(id string) string {
	p, class := m.find(id)
	if class == ok && id != "" && p.status == tasktypes.Status_STOPPED {
		return pre
	}
	return class
}

// about is what State, Pids, CloseIO and Update answer: what is there can be asked.
// runc refuses an update of what has ended.
func (m *model) about(id string) string {
	_, class := m.find(id)
	return class
}
