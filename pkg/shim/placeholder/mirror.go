package placeholder

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// mirrorTime is how long processes are there after they were asked for: as
	// long as a client may take from the list of pids to its ps.
	mirrorTime = 30 * time.Second
	// mirrorLimit is how many there are. A guest could claim any number.
	mirrorLimit = 64
	// spareThreads are kept for the shim and the VMM, which end when they get none.
	spareThreads = 128
)

// Mirrored is a process in the guest that has no other pid on the host.
type Mirrored struct {
	Identity

	GuestPID int
}

// mirror has processes for those that a client has asked for. Its zero value has none.
type mirror struct {
	mu      sync.Mutex // guards the fields below
	stopped bool
	count   int // of processes so far, for their names
	live    map[mirrorKey]mirrored
	timer   *time.Timer // ends them all; nil when there are none
}

// mirrorKey makes a process another one when its pid was used again, or when it has
// executed another program.
type mirrorKey struct {
	guestPID int
	name     string
	args     string
}

// mirrored is a process on the host.
type mirrored struct {
	name string // its own as a child of the placeholder
	pid  int
}

// Mirror returns the pid of a process on the host for each one of a list, which has
// all that there are: those of an earlier list that are not in it are ended. They are
// there for some time only. What cannot be started, or is too many, is 0.
func (p *Placeholder) Mirror(list []Mirrored) []int {
	m := &p.mirror
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := p.mirrorRoom()
	before := m.live
	m.live = make(map[mirrorKey]mirrored, len(list))
	pids := make([]int, len(list))
	for i, want := range list {
		key := mirrorKey{want.GuestPID, want.Name, strings.Join(want.Args, "\x00")}
		if _, twice := m.live[key]; twice { // the guest is not trusted
			continue
		}
		process, there := before[key]
		delete(before, key)
		if !there && len(m.live) < limit && !m.stopped {
			process, there = p.startMirrored(want.Identity)
		}
		if there {
			m.live[key], pids[i] = process, process.pid
		}
	}
	for _, process := range before {
		p.End(process.name)
	}
	if m.timer == nil && !m.stopped {
		m.timer = time.AfterFunc(mirrorTime, func() { p.Mirror(nil) })
	} else if !m.stopped {
		m.timer.Reset(mirrorTime)
	}
	if len(list) == 0 && m.timer != nil {
		m.timer.Stop()
	}
	return pids
}

// mirrorRoom is how many processes may be mirrored: those that there are, and as many as
// there is room for.
func (p *Placeholder) mirrorRoom() int {
	if p.room == nil {
		return mirrorLimit
	}
	room, err := p.room()
	if err != nil {
		return 0
	}
	return min(mirrorLimit, len(p.mirror.live)+room-spareThreads)
}

// startMirrored starts a process. A host that has no room for it shows less.
func (p *Placeholder) startMirrored(id Identity) (process mirrored, ok bool) {
	p.mirror.count++
	process.name = fmt.Sprintf("\x00%d", p.mirror.count) // no container's process has such an id
	var err error
	process.pid, err = p.Start(process.name, id, func(syscall.Signal) {})
	return process, err == nil
}

// stop ends the mirroring; the processes end with the placeholder.
func (m *mirror) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	m.live = nil
	if m.timer != nil {
		m.timer.Stop()
	}
}
