package livevolume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// again is how long after a failure the guest is asked once more. It may be paused.
const again = time.Second

// Guest is a guest that copies volumes.
type Guest interface {
	// RefreshVolume has the guest bring its copy of a volume of the share up to date, whose
	// link leads to data now. A volume of which it has no copy yet is errdefs.ErrNotFound.
	RefreshVolume(ctx context.Context, volume, data string) error
}

// Watch watches the volumes of one sandbox.
type Watch struct {
	guest  Guest
	ctx    context.Context //nolint:containedctx // of the goroutines, which start later
	cancel context.CancelFunc
	wg     sync.WaitGroup
	change chan struct{} // has something when a volume is dirty

	mu      sync.Mutex // guards the fields below, and those of all volumes
	closed  bool
	notify  *os.File          // inotify; nil before the first volume
	volumes map[int32]*volume // by their inotify watch
}

// volume is a directory of the host that is watched.
type volume struct {
	source string
	uses   int            // of the inotify watch
	paths  map[string]int // where it is below the share, with how many use it
	dirty  bool           // the guest's copies are not up to date
}

// New returns a watch that watches nothing yet. ctx has the logger.
func New(ctx context.Context, guest Guest) *Watch {
	w := &Watch{guest: guest, change: make(chan struct{}, 1), volumes: make(map[int32]*volume)}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return w
}

// Close ends it. It is idempotent.
func (w *Watch) Close() error {
	w.cancel()
	w.mu.Lock()
	w.closed = true
	notify := w.notify
	w.notify = nil
	w.mu.Unlock()
	var err error
	if notify != nil {
		err = notify.Close()
	}
	w.wg.Wait()
	return err
}

// Bind exposes a bind mount by a function that does it, as a live volume when it is one. The
// caller ends that with Forget of the path.
func (w *Watch) Bind(b share.Bind, expose func(share.Bind) (path string, guard bool, err error)) (path string, guard bool, err error) {
	if !isLive(b) {
		return expose(b)
	}
	id, err := w.add(b.Source) // before the guest looks: it is told of what changes from now on
	if err != nil {
		log.G(w.ctx).WithError(err).WithField("volume", b.Source).
			Warn("the volume cannot be watched: its changes are seen in the pod, but raise no inotify events there")
		return expose(b)
	}
	b.Live = hyperstart.LiveVolumes
	path, guard, err = expose(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.release(id)
		return path, guard, err
	}
	v := w.volumes[id]
	v.paths[path]++
	w.signal(v.dirty)
	return path, guard, nil
}

// Forget ends a use of a volume by its path below the share. Other paths are ignored.
func (w *Watch) Forget(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, v := range w.volumes {
		if v.paths[path] == 0 {
			continue
		}
		if v.paths[path]--; v.paths[path] == 0 {
			delete(v.paths, path)
		}
		w.release(id)
		return
	}
}

// add watches a directory, for one use more.
func (w *Watch) add(source string) (id int32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, fmt.Errorf("watch %s: the sandbox has ended: %w", source, errdefs.ErrUnavailable)
	}
	if err := w.open(); err != nil {
		return 0, fmt.Errorf("watch %s: %w", source, err)
	}
	n, err := control(w.notify, func(fd int) (int, error) {
		return unix.InotifyAddWatch(fd, source, unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", source, err)
	}
	id = int32(n)
	v := w.volumes[id]
	if v == nil {
		v = &volume{source: source, paths: make(map[string]int)}
		w.volumes[id] = v
	}
	v.uses++
	return id, nil
}

// release ends a use. The lock is held.
func (w *Watch) release(id int32) {
	v := w.volumes[id]
	if v.uses--; v.uses > 0 {
		return
	}
	delete(w.volumes, id)
	if w.notify == nil {
		return
	}
	// It is gone already when the kubelet has removed the directory.
	_, _ = control(w.notify, func(fd int) (int, error) {
		return unix.InotifyRmWatch(fd, uint32(id))
	})
}

// open makes the inotify instance and starts the goroutines, once. The lock is held.
func (w *Watch) open() error {
	if w.notify != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("root has no inotify instance left (raise fs.inotify.max_user_instances): %w", err)
	}
	if err != nil {
		return err
	}
	w.notify = os.NewFile(uintptr(fd), "inotify")
	notify := w.notify
	w.wg.Go(func() { w.read(notify) })
	w.wg.Go(w.refresh)
	return nil
}

// control runs a system call on the descriptor of a file, which stays as it is.
func control(f *os.File, call func(fd int) (int, error)) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { n, err = call(int(fd)) }); e != nil {
		return 0, e
	}
	return n, err
}

// read reads events until the file is closed.
func (w *Watch) read(notify *os.File) {
	buf := make([]byte, 16<<10) // an event has 272 bytes at most
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			id := int32(binary.NativeEndian.Uint32(b))
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			end := min(len(b), unix.SizeofInotifyEvent+int(size))
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
			b = b[end:]
			w.mark(id, mask, name)
		}
	}
}

// mark notes what an event says.
func (w *Watch) mark(id int32, mask uint32, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, v := range w.volumes {
		if mask&unix.IN_Q_OVERFLOW != 0 || i == id && name == dataLink {
			v.dirty = true
			w.signal(true)
		}
	}
}

// signal wakes who speaks to the guest.
func (w *Watch) signal(dirty bool) {
	if !dirty {
		return
	}
	select {
	case w.change <- struct{}{}:
	default:
	}
}

// refresh has the guest bring its copies up to date, as long as there is a sandbox.
func (w *Watch) refresh() {
	var retry <-chan time.Time
	failed := false
	for {
		select {
		case <-w.change:
		case <-retry:
		case <-w.ctx.Done():
			return
		}
		retry = nil
		err := w.refreshDirty()
		if err == nil {
			failed = false
			continue
		}
		if w.ctx.Err() == nil && !failed {
			failed = true
			log.G(w.ctx).WithError(err).Warn("a volume that the kubelet has changed is not up to date in the pod yet")
		}
		retry = time.After(again)
	}
}

// refreshDirty has the guest bring up to date all copies that are not.
func (w *Watch) refreshDirty() error {
	var errs []error
	for path, source := range w.takeDirty() {
		data, err := dataOf(source)
		if errors.Is(err, os.ErrNotExist) {
			continue // the volume is gone
		}
		if err == nil {
			err = w.guest.RefreshVolume(w.ctx, path, data)
		}
		// Without a copy the guest makes one, of what is there then.
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("volume %s: %w", source, err))
			w.markDirty(path)
		}
	}
	return errors.Join(errs...)
}

// takeDirty returns the paths that are not up to date, with their sources, and takes them for
// such that are. A volume without a path is not exposed yet.
func (w *Watch) takeDirty() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	dirty := make(map[string]string)
	for _, v := range w.volumes {
		if !v.dirty || len(v.paths) == 0 {
			continue
		}
		v.dirty = false
		for path := range v.paths {
			dirty[path] = v.source
		}
	}
	return dirty
}

// markDirty takes back what takeDirty has taken for granted.
func (w *Watch) markDirty(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.volumes {
		if v.paths[path] > 0 {
			v.dirty = true
		}
	}
}
