package podvm

import (
	"errors"
	"sync"
)

// Parts whose end is that of a VM, as counters call them.
const (
	partVMM     = "qemu"
	partShare   = "virtiofsd"
	partGuest   = "guest"
	partHostOOM = "host_oom" // the host had no memory for the VMM or the server of the share
)

// partError is the end of a part.
type partError struct {
	error

	part string
}

func (e *partError) Unwrap() error { return e.error }

// loss is the end of the VM or of what it depends on.
type loss struct {
	known chan struct{}     // closed when there is a cause
	ended func(cause error) // is told it

	mu    sync.Mutex // guards what follows
	cause error
	part  string
}

// report reports an end; the first one counts.
func (l *loss) report(cause error) {
	l.mu.Lock()
	first := l.cause == nil
	if first {
		l.cause = cause
		if e, ok := errors.AsType[*partError](cause); ok {
			l.part = e.part
		}
		close(l.known)
	}
	l.mu.Unlock()
	if first {
		l.ended(cause)
	}
}

// err is the cause, nil before there is one.
func (l *loss) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// whose is the part that has ended first; "" when the VM was ended.
func (l *loss) whose() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.part
}

// blame finds out whether the host's memory was the cause of an end.
func blame(m *Machine) {
	if part := m.loss.whose(); part != partVMM && part != partShare {
		return
	}
	if oom, err := m.OOMKilled(); err != nil || !oom {
		return
	}
	m.loss.mu.Lock()
	defer m.loss.mu.Unlock()
	m.loss.part = partHostOOM
}
