package livevolume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// again is how long after a failure the guest is asked once more (it may be paused), and how
// often is looked at a volume that inotify cannot watch.
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
	start  sync.Once     // of the goroutine that speaks to the guest
	change chan struct{} // has something when a volume is dirty

	mu      sync.Mutex // guards the fields below, and those of all volumes
	closed  bool
	notify  *os.File           // inotify; nil before the first volume
	polling bool               // a goroutine looks at the volumes without an inotify watch
	volumes map[string]*volume // by their sources
	size    int64              // of all volumes
}

// volume is a directory of the host that is watched.
type volume struct {
	source string
	size   int64          // of what was copied last
	watch  int32          // of inotify, or none
	data   string         // where the link led, of one without a watch
	uses   int            // by containers
	paths  map[string]int // where it is below the share, with how many use it
	dirty  bool           // the guest's copies are not up to date
}

// New returns a watch that watches nothing yet. ctx has the logger.
func New(ctx context.Context, guest Guest) *Watch {
	w := &Watch{guest: guest, change: make(chan struct{}, 1), volumes: make(map[string]*volume)}
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
	size, ok := isLive(b)
	if !ok {
		return expose(b)
	}
	v, err := w.add(filepath.Clean(b.Source), size) // before the guest looks: it is told of what changes from now on
	if err != nil {
		log.G(w.ctx).WithError(err).WithField("volume", b.Source).
			Warn("the volume is not watched: its changes are seen in the pod, but raise no inotify events there")
		return expose(b)
	}
	b.Live = hyperstart.LiveVolumes
	path, guard, err = expose(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.release(v)
		return path, guard, err
	}
	v.paths[path]++
	w.signal(v.dirty)
	return path, guard, nil
}

// Forget ends a use of a volume by its path below the share. Other paths are ignored.
func (w *Watch) Forget(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.volumes {
		if v.paths[path] == 0 {
			continue
		}
		if v.paths[path]--; v.paths[path] == 0 {
			delete(v.paths, path)
		}
		w.release(v)
		return
	}
}

// add watches a directory, for one use more.
func (w *Watch) add(source string, size int64) (*volume, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("the sandbox has ended: %w", errdefs.ErrUnavailable)
	}
	v := w.volumes[source]
	if v == nil {
		if w.size+size > maxSum {
			return nil, fmt.Errorf("it has %d KiB, and the copies of others in the guest's memory %d KiB of %d", size>>10, w.size>>10, maxSum>>10)
		}
		v = &volume{source: source, size: size, paths: make(map[string]int)}
		if err := w.observe(v); err != nil {
			return nil, err
		}
		w.start.Do(func() { w.wg.Go(w.refresh) })
		w.volumes[source] = v
		w.size += size
	}
	v.uses++
	return v, nil
}

// release ends a use. The lock is held.
func (w *Watch) release(v *volume) {
	if v.uses--; v.uses > 0 {
		return
	}
	delete(w.volumes, v.source)
	w.size -= v.size
	w.unobserve(v)
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
		if err == nil && !w.fits(source) {
			continue
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

// fits reports whether the copy of a volume that has changed still has room. One that has none stays what
// it was: containers have it open, and a part of the new one would be neither.
func (w *Watch) fits(source string) bool {
	size, err := sizeOf(source)
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.volumes[source]
	if v == nil {
		return true // it was forgotten meanwhile, which the guest knows
	}
	if errors.Is(err, errLarge) || w.size-v.size+size > maxSum {
		log.G(w.ctx).WithField("volume", source).WithField("max_kib", maxSize>>10).WithField("max_pod_kib", maxSum>>10).
			Warn("a volume that the kubelet has changed is too large to be copied now: the pod keeps the files that it had")
		return false
	}
	w.size += size - v.size
	v.size = size
	return true
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
