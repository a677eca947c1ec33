package livevolume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// none is the inotify watch of a volume that is looked at from time to time instead.
const none = -1

// observe has the changes of a volume's link noted: by inotify or, where root has no
// instance or watch left, by looking at it. The lock is held.
func (w *Watch) observe(v *volume) (err error) {
	if v.data, err = dataOf(v.source); err != nil {
		return err
	}
	if v.watch, err = w.notifyOf(v.source); err == nil {
		return nil
	}
	v.watch = none
	if !w.polling {
		w.polling = true
		log.G(w.ctx).WithError(err).WithField("volume", v.source).
			Warn("a volume cannot be watched with inotify: it is looked at once a second")
		w.wg.Go(w.poll)
	}
	return nil
}

// unobserve ends that. The lock is held.
func (w *Watch) unobserve(v *volume) {
	if v.watch == none || w.notify == nil {
		return
	}
	for _, other := range w.volumes { // the same directory by another path
		if other.watch == v.watch {
			return
		}
	}
	// It is gone already when the kubelet has removed the directory.
	_, _ = control(w.notify, func(fd int) (int, error) {
		return unix.InotifyRmWatch(fd, uint32(v.watch))
	})
}

// notifyOf makes an inotify watch of a directory. The lock is held.
func (w *Watch) notifyOf(source string) (id int32, err error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := control(w.notify, func(fd int) (int, error) {
		return unix.InotifyAddWatch(fd, source, unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	})
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("root has no inotify watch left (raise fs.inotify.max_user_watches): %w", err)
	}
	return int32(n), err
}

// open makes the inotify instance and starts its goroutine, once. The lock is held.
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
	for _, v := range w.volumes {
		if mask&unix.IN_Q_OVERFLOW != 0 || v.watch == id && name == dataLink {
			v.dirty = true
			w.signal(true)
		}
	}
}

// poll looks at the volumes without an inotify watch, as long as there are some.
func (w *Watch) poll() {
	for tick := time.NewTicker(again); ; {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return
		}
		if !w.look() {
			return
		}
	}
}

// look looks at them once.
func (w *Watch) look() (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.polling = false
	for _, v := range w.volumes {
		if v.watch != none {
			continue
		}
		w.polling = true
		data, err := dataOf(v.source)
		if err == nil && data != v.data { // else the volume is gone
			v.data, v.dirty = data, true
			w.signal(true)
		}
	}
	return w.polling
}
