package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// oomWatcher reports processes that the kernel killed for lack of memory. The
// counter is read when its file changes, and once more before the end of a
// process is sent, so that the report precedes the exit.
type oomWatcher struct {
	notify func(container string)
	fd     int
	file   *os.File

	mu      sync.Mutex // guards what follows, and orders notify calls
	watched map[string]*oomCounter
	byWatch map[int32]string
}

type oomCounter struct {
	path  string // memory.events
	watch int32
	seen  uint64
}

// newOOMWatcher starts watching; its goroutine lives as long as the guest.
func newOOMWatcher(notify func(container string)) (*oomWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch oom events: %w", err)
	}
	w := &oomWatcher{
		notify: notify, fd: fd, file: os.NewFile(uintptr(fd), "inotify"),
		watched: map[string]*oomCounter{}, byWatch: map[int32]string{},
	}
	go func() { defer console.Guard(); w.run() }()
	return w, nil
}

func (w *oomWatcher) run() {
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
				w.check(id)
			}
		}
	}
}

// add watches the cgroup of a container. Without a memory controller there is
// nothing to watch.
func (w *oomWatcher) add(id, cgroup string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := filepath.Join(cgroup, "memory.events")
	watch, err := unix.InotifyAddWatch(w.fd, path, unix.IN_MODIFY)
	if err != nil {
		console.Logf("container %s: watch oom events: %v", id, err)
		return
	}
	w.watched[id] = &oomCounter{path: path, watch: int32(watch)}
	w.byWatch[int32(watch)] = id
}

func (w *oomWatcher) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.watched[id]
	if !ok {
		return
	}
	// The watch may have gone with its cgroup.
	_, _ = unix.InotifyRmWatch(w.fd, uint32(c.watch))
	delete(w.byWatch, c.watch)
	delete(w.watched, id)
}

// check reports the container when its counter has grown. When it returns,
// the report was sent, by this call or another.
func (w *oomWatcher) check(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.watched[id]
	if !ok {
		return
	}
	b, err := os.ReadFile(c.path)
	if err != nil {
		return // the cgroup has gone
	}
	if n := kernfs.FlatKeyed(b)["oom_kill"]; n > c.seen {
		c.seen = n
		w.notify(id)
	}
}

func (a *Agent) sendOOM(container string) {
	a.sendEvent(hyperstart.EventMessage{Kind: hyperstart.EventOOM, Container: container})
}

func (a *Agent) sendEvent(e hyperstart.EventMessage) {
	b, err := json.Marshal(e)
	if err != nil {
		console.Logf("container %s: %v", e.Container, err)
		return
	}
	a.ctl.send(hyperstart.Event, b)
}
