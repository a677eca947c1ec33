package sandbox

import "time"

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

// TaskStarted says that a container's first process runs.
type TaskStarted struct {
	ContainerID string
	PID         int
}

// ExecAdded says that an additional process was registered.
type ExecAdded struct{ ContainerID, ExecID string }

// ExecStarted says that an additional process runs.
type ExecStarted struct {
	ContainerID, ExecID string
	PID                 int
}

// TaskExited says that a process has ended, once for each.
type TaskExited struct {
	ContainerID string
	ExecID      string // "" for the container's first process
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

// TaskPaused says that a container stands still.
type TaskPaused struct{ ContainerID string }

// TaskResumed says that a container goes on.
type TaskResumed struct{ ContainerID string }

// TaskOOM says that a process of the container was killed for want of memory.
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
