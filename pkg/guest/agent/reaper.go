package agent

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// signalBase is what is added to a signal's number to make an exit status.
const signalBase = 128

var errExited = errors.New("process already finished")

// reaper is the only caller of wait in PID 1. It implements
// [runc.ProcessMonitor], so that the OCI runtime's invocations are reaped by it
// too, and hands the exits of reparented container processes to their owners.
//
// A process may end before its owner knows its pid. Whoever is about to start
// one opens a window first; exits that nobody waits for are kept in the open
// windows, and claim looks there.
type reaper struct {
	mu      sync.Mutex
	waiters map[int]chan runc.Exit
	windows map[*window]struct{}
}

// window keeps the exits of unknown processes while it is open.
type window struct {
	r     *reaper
	exits map[int]runc.Exit // guarded by r.mu
}

func newReaper() *reaper {
	return &reaper{waiters: map[int]chan runc.Exit{}, windows: map[*window]struct{}{}}
}

// run reaps until stop is closed.
func (r *reaper) run(stop <-chan struct{}) {
	// One pending signal is enough: every round reaps all there are.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)
	for {
		r.reap()
		select {
		case <-signals:
		case <-stop:
			return
		}
	}
}

// reap collects all children that have ended. The lock is held from wait to
// delivery, so that signal never reaches a pid that was given to a new process.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		r.deliver(runc.Exit{Timestamp: time.Now(), Pid: pid, Status: exitStatus(status)})
	}
}

// deliver is called with mu held.
func (r *reaper) deliver(e runc.Exit) {
	if ch, ok := r.waiters[e.Pid]; ok {
		delete(r.waiters, e.Pid)
		ch <- e
		return
	}
	for w := range r.windows {
		w.exits[e.Pid] = e
	}
}

func exitStatus(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return signalBase + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// open starts a window. The caller must close it.
func (r *reaper) open() *window {
	w := &window{r: r, exits: map[int]runc.Exit{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.windows[w] = struct{}{}
	return w
}

func (w *window) close() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	delete(w.r.windows, w)
}

// claim returns the channel that gets the exit of pid, once.
func (w *window) claim(pid int) chan runc.Exit {
	ch := make(chan runc.Exit, 1)
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if e, ok := w.exits[pid]; ok {
		delete(w.exits, pid)
		ch <- e
		return ch
	}
	w.r.waiters[pid] = ch
	return ch
}

// signal sends sig to a claimed process that has not been reaped.
func (r *reaper) signal(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiters[pid]; !ok {
		return errExited
	}
	err := unix.Kill(pid, sig)
	if errors.Is(err, unix.ESRCH) {
		return errExited
	}
	return err
}

// Start implements [runc.ProcessMonitor].
func (r *reaper) Start(c *exec.Cmd) (chan runc.Exit, error) {
	w := r.open()
	defer w.close()
	if err := c.Start(); err != nil {
		return nil, err
	}
	return w.claim(c.Process.Pid), nil
}

// StartLocked implements [runc.ProcessMonitor].
func (r *reaper) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return r.Start(c)
}

// Wait implements [runc.ProcessMonitor]. The process is reaped already when
// c.Wait is called, which then only joins the goroutines that copy its output.
func (r *reaper) Wait(c *exec.Cmd, ch chan runc.Exit) (int, error) {
	e := <-ch
	_ = c.Wait()
	return e.Status, nil
}
