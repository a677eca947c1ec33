package cgroups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// OOMWatcher reports processes that the kernel killed because they were out of
// memory, and sees that the kernel can tell when they are. The counter is read when its file changes, and once more before the
// end of a process is sent, so that the report precedes the exit.
type OOMWatcher struct {
	notify func(container string)
	fd     int
	file   *os.File
	done   chan struct{} // closed when the goroutine has ended
	text   *textKeeper

	mu      sync.Mutex // guards the tables
	watched map[string]*oomCounter
	byWatch map[int32]string
}

type oomCounter struct {
	path  string // memory.events
	watch int32
	// turn has a token for the one check that may run. A second one waits for
	// the report of the first. Whoever has it may use seen.
	turn chan struct{}
	seen uint64
}

// NewOOMWatcher starts watching. The caller must call Close.
func NewOOMWatcher(notify func(container string)) (*OOMWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch oom events: %w", err)
	}
	text, err := newTextKeeper()
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	w := &OOMWatcher{
		notify: notify, text: text, fd: fd, file: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}),
		watched: map[string]*oomCounter{}, byWatch: map[int32]string{},
	}
	go func() { defer console.Guard(); w.run() }()
	return w, nil
}

// Close ends all watches.
func (w *OOMWatcher) Close() {
	w.text.close()
	w.file.Close()
	<-w.done
}

func (w *OOMWatcher) run() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			watch := int32(binary.NativeEndian.Uint32(b))
			name := binary.NativeEndian.Uint32(b[12:])
			b = b[min(len(b), unix.SizeofInotifyEvent+int(name)):]
			w.mu.Lock()
			id := w.byWatch[watch]
			w.mu.Unlock()
			if id != "" {
				w.Check(id)
			}
		}
	}
}

// Add watches the cgroup of a container. Without a memory controller there is
// nothing to watch.
func (w *OOMWatcher) Add(id string, group Group) {
	w.text.add(id, group, false)
	w.mu.Lock()
	defer w.mu.Unlock()
	path := filepath.Join(string(group), "memory.events")
	watch, err := unix.InotifyAddWatch(w.fd, path, unix.IN_MODIFY)
	if err != nil {
		console.Logf("container %s: watch oom events: %v", id, err)
		return
	}
	w.watched[id] = &oomCounter{path: path, watch: int32(watch), turn: make(chan struct{}, 1)}
	w.byWatch[int32(watch)] = id
}

// AddGuest watches the parent of all containers' groups, which may fill the guest.
func (w *OOMWatcher) AddGuest(base Group) { w.text.add("", base, true) }

// Remove ends the watch.
func (w *OOMWatcher) Remove(id string) {
	w.text.remove(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.watched[id]
	if !ok {
		return
	}
	// The kernel removes the watch together with its group.
	_, _ = unix.InotifyRmWatch(w.fd, uint32(c.watch))
	delete(w.byWatch, c.watch)
	delete(w.watched, id)
}

// Check reports the container when its counter has grown. When it returns,
// the report was sent, by this call or another.
func (w *OOMWatcher) Check(id string) {
	w.mu.Lock()
	c, ok := w.watched[id]
	w.mu.Unlock()
	if !ok {
		return
	}
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	b, err := os.ReadFile(c.path)
	if err != nil {
		return // the group was removed
	}
	if n := kernfs.FlatKeyed(b)["oom_kill"]; n > c.seen {
		c.seen = n
		w.notify(id)
	}
}
