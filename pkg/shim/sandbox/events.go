package sandbox

import (
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// Sink takes the events of a sandbox, in order. It must not block for long.
type Sink interface {
	Publish(Event)
}

// Event is one of the types below.
type Event interface{ event() }

// TaskCreated says that a container was created.
type TaskCreated struct {
	Container *Container
	PID       int
}

// TaskStarted says that a container's init process runs.
type TaskStarted struct {
	ContainerID string
	PID         int
}

// ExecAdded says that an exec process was registered.
type ExecAdded struct{ ContainerID, ExecID string }

// ExecStarted says that an exec process runs.
type ExecStarted struct {
	ContainerID, ExecID string
	PID                 int
}

// TaskExited says that a process has ended, once for each.
type TaskExited struct {
	ContainerID string
	ExecID      string // "" for the init process
	PID         int
	Status      uint32
	At          time.Time
}

// TaskDeleted says that a container is gone.
type TaskDeleted struct {
	ContainerID string
	PID         int
	Status      uint32
	At          time.Time
}

// TaskPaused says that a container is paused.
type TaskPaused struct{ ContainerID string }

// TaskResumed says that a container was resumed.
type TaskResumed struct{ ContainerID string }

// TaskOOM says that a process of the container was killed, out of memory.
type TaskOOM struct{ ContainerID string }

func (TaskCreated) event() {}
func (TaskStarted) event() {}
func (ExecAdded) event()   {}
func (ExecStarted) event() {}
func (TaskExited) event()  {}
func (TaskDeleted) event() {}
func (TaskPaused) event()  {}
func (TaskResumed) event() {}
func (TaskOOM) event()     {}

// publish hands an event to the sink.
func (s *Sandbox) publish(e Event) { s.opts.Sink.Publish(e) }

// guestEvents takes what the guest reports, which may claim anything.
func guestEvents(s *Sandbox) client.Events {
	return client.Events{
		OOM: func(container string) {
			if c, err := s.Container(container); err == nil {
				c.reportOOM()
			}
		},
		Exited: func(container, execID string, status uint8) {
			c, err := s.Container(container)
			if err != nil {
				return
			}
			p, err := c.Process(execID)
			if err != nil {
				return
			}
			select {
			case p.end.early <- status:
			default: // reported before
			}
		},
	}
}

// reportOOM announces that a process of the container was killed, out of memory,
// once: a hostile guest must not flood containerd.
func (c *Container) reportOOM() {
	c.mu.Lock()
	seen := c.status.oomSeen
	c.status.oomSeen = true
	c.mu.Unlock()
	if !seen {
		c.sandbox.publish(TaskOOM{ContainerID: c.ID})
	}
}
