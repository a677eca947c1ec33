package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// pressure is the kernel's condition to report a group, in µs: processes have waited
// for memory for a twentieth of half a second, the shortest window that there is. Most
// of the time goes to reading pages again, which the kernel does not count.
const pressure = "some 25000 500000"

// textKeeper keeps the text of programs out of the reach of limits. A host has it in
// memory, of nobody in particular. A guest has just started: whatever a container
// runs was read for it, counts for it, and is the first that the kernel takes when the
// container is at its limit. It comes back through the file server at once, which for
// the kernel is progress, so that it may be minutes until it kills what has grown too
// large. When the agent has locked the text, all is as on a host: the kernel finds
// that there is nothing to take, and kills, or the container runs on.
type textKeeper struct {
	epoll int
	end   int // an eventfd that ends the goroutine
	work  sync.WaitGroup

	turn    chan struct{}       // has the token of who uses what follows
	holders map[int]*textHolder // processes whose text is locked, by pid

	mu     sync.Mutex // guards the tables
	groups map[string]*textGroup
	byFD   map[int32]func() // what to do when a descriptor has an event
}

// textGroup is a group that is watched.
type textGroup struct {
	keeper *textKeeper
	id     string
	group  Group
	guest  bool // all containers, whose limit is the guest's memory
	fd     int  // of memory.pressure, with the condition

	refaults map[Group]uint64 // when they were last looked at, with the keeper's turn
}

func newTextKeeper() (*textKeeper, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch memory pressure: %w", err)
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch memory pressure: %w", err), unix.Close(epoll))
	}
	k := &textKeeper{
		epoll: epoll, end: end, turn: make(chan struct{}, 1), holders: map[int]*textHolder{},
		groups: map[string]*textGroup{}, byFD: map[int32]func(){},
	}
	if err := k.await(end, unix.EPOLLIN, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("watch memory pressure: %w", err), unix.Close(epoll), unix.Close(end))
	}
	k.work.Go(func() { defer console.Guard(); k.run() })
	return k, nil
}

// close ends all watches, and unlocks what is locked.
func (k *textKeeper) close() {
	_, _ = unix.Write(k.end, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // there is room in it
	k.work.Wait()
	for pid := range k.holders {
		k.drop(pid)
	}
	for _, g := range k.groups {
		unix.Close(g.fd)
	}
	unix.Close(k.epoll)
	unix.Close(k.end)
}

// await has do called when a descriptor has an event.
func (k *textKeeper) await(fd int, events uint32, do func()) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byFD[int32(fd)] = do
	err := unix.EpollCtl(k.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	if err != nil {
		delete(k.byFD, int32(fd))
	}
	return err
}

// closeFD ends the wait for a descriptor.
func (k *textKeeper) closeFD(fd int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byFD, int32(fd))
	unix.Close(fd)
}

func (k *textKeeper) run() {
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(k.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			console.Logf("watch memory pressure: %v", err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == k.end {
				return
			}
			k.mu.Lock()
			do := k.byFD[e.Fd]
			k.mu.Unlock()
			if do != nil {
				do()
			}
		}
	}
}

// add watches a group. A kernel without reports of pressure has nothing to watch.
func (k *textKeeper) add(id string, group Group, guest bool) {
	g := &textGroup{keeper: k, id: id, group: group, guest: guest}
	err := g.watch()
	if err == nil {
		k.mu.Lock()
		k.groups[id] = g
		k.mu.Unlock()
		return
	}
	switch missing := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP); {
	case missing && guest:
		console.Logf("the kernel does not report memory pressure (CONFIG_PSI): a container at its limit may hang")
	case !missing:
		console.Logf("container %s: watch memory pressure: %v", id, err)
	}
}

func (g *textGroup) watch() error {
	// Not an os.File: who polls a condition takes its event, and Go's runtime would.
	fd, err := unix.Open(filepath.Join(string(g.group), "memory.pressure"), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	g.fd = fd
	if _, err = unix.Write(fd, []byte(pressure+"\x00")); err == nil {
		err = g.keeper.await(fd, unix.EPOLLPRI, g.underPressure)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// remove ends a watch, of a group whose processes have ended. Of those nothing is
// locked when it returns.
func (k *textKeeper) remove(id string) {
	k.mu.Lock()
	g := k.groups[id]
	delete(k.groups, id)
	k.mu.Unlock()
	if g != nil {
		k.closeFD(g.fd)
	}
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	k.dropEnded()
}

// underPressure locks text, unless that is going on: the file server may be slow.
func (g *textGroup) underPressure() {
	k := g.keeper
	select {
	case k.turn <- struct{}{}:
	default:
		return
	}
	k.work.Go(func() {
		defer console.Guard()
		defer func() { <-k.turn }()
		k.dropEnded()
		looks := maxLooks
		for _, group := range g.short() {
			if err := k.lockText(g, group, &looks); err != nil && !gone(err) {
				console.Logf("container %s: lock text: %v", g.id, err)
			}
		}
	})
}

// someEnded unlocks what was locked for processes that have ended.
func (k *textKeeper) someEnded() {
	k.work.Go(func() {
		defer console.Guard()
		k.turn <- struct{}{}
		defer func() { <-k.turn }()
		k.dropEnded()
	})
}

// The rest of a limit that is hardly enough for the text of its programs.
const (
	smallPart  = 8
	smallBytes = 4 << 20
)

// maxInner bounds the groups that a container has made in its own and that are looked at.
const maxInner = 1000

// short finds the groups that are at their limit, with little left to take, and whose
// pages are read again: the group itself, and those with a limit that the container has
// made in it. A group that has read large files is at its limit, too, but all of that can
// be taken.
func (g *textGroup) short() []Group {
	before := g.refaults
	g.refaults = map[Group]uint64{}
	all := g.ifShort(nil, g.group, before)
	if g.guest {
		return all // each container has a watch of its own
	}
	// What ends the walk is that groups are removed meanwhile, or that there are too many.
	_ = walk(string(g.group), func(dir string) error {
		if len(g.refaults) > maxInner {
			return unix.E2BIG
		}
		if Group(dir) != g.group {
			all = g.ifShort(all, Group(dir), before)
		}
		return nil
	})
	return all
}

// ifShort adds a group to those that are short.
func (g *textGroup) ifShort(all []Group, group Group, before map[Group]uint64) []Group {
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // of a group that was removed
		}
		return b
	}
	limit := kernfs.Number(read(filepath.Join(string(group), "memory.max")))
	free := limit - min(limit, kernfs.Number(read(filepath.Join(string(group), "memory.current"))))
	if g.guest {
		info := read("/proc/meminfo")
		limit, free = kernfs.KiB(info, "MemTotal:"), kernfs.KiB(info, "MemFree:")
	}
	g.refaults[group] = 0
	if limit == 0 {
		return all
	}
	stat := kernfs.FlatKeyed(read(filepath.Join(string(group), "memory.stat")))
	refaults := stat["workingset_refault_file"]
	g.refaults[group] = refaults
	cache := stat["active_file"] + stat["inactive_file"]
	if refaults != before[group] && free+cache <= max(limit/smallPart, smallBytes) {
		all = append(all, group)
	}
	return all
}
