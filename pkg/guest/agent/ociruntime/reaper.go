package ociruntime

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

// Reaper is the only caller of wait in PID 1. It implements
// [runc.ProcessMonitor], so that the OCI runtime's invocations are reaped by it
// too, and hands the exits of reparented container processes to their owners.
//
// A process may end before its owner knows its pid. Who starts one opens an
// exitWatch first; exits that nobody waits for are kept in the open ones, and claim
// looks there.
type Reaper struct {
	mu      sync.Mutex
	waiters map[int]chan runc.Exit
	watches map[*exitWatch]struct{}
}

// exitWatch keeps the exits of unknown processes while it is open.
type exitWatch struct {
	r     *Reaper
	exits map[int]runc.Exit // guarded by r.mu
}

// NewReaper returns a reaper that waits for nothing before Run.
func NewReaper() *Reaper {
	return &Reaper{waiters: map[int]chan runc.Exit{}, watches: map[*exitWatch]struct{}{}}
}

// Run reaps until stop is closed.
func (r *Reaper) Run(stop <-chan struct{}) {
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
func (r *Reaper) reap() {
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
func (r *Reaper) deliver(e runc.Exit) {
	if ch, ok := r.waiters[e.Pid]; ok {
		delete(r.waiters, e.Pid)
		ch <- e
		return
	}
	for w := range r.watches {
		w.exits[e.Pid] = e
	}
}

func exitStatus(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return signalBase + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// open starts to keep exits. The caller must close it.
func (r *Reaper) open() *exitWatch {
	w := &exitWatch{r: r, exits: map[int]runc.Exit{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches[w] = struct{}{}
	return w
}

func (w *exitWatch) close() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	delete(w.r.watches, w)
}

// claim returns the channel that gets the exit of pid, once.
func (w *exitWatch) claim(pid int) chan runc.Exit {
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

// child returns the process with a pid. It is to be called while w is open.
func (w *exitWatch) child(pid int) *Child {
	return w.r.child(pid, w.claim(pid))
}

func (r *Reaper) child(pid int, exit <-chan runc.Exit) *Child {
	return NewChild(pid,
		func() int { return (<-exit).Status },
		func(sig unix.Signal) error { return r.signal(pid, sig) })
}

// signal sends sig to a claimed process that has not been reaped.
func (r *Reaper) signal(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiters[pid]; !ok {
		return ErrExited
	}
	err := unix.Kill(pid, sig)
	if errors.Is(err, unix.ESRCH) {
		return ErrExited
	}
	return err
}

// Start implements [runc.ProcessMonitor].
func (r *Reaper) Start(c *exec.Cmd) (chan runc.Exit, error) {
	w := r.open()
	defer w.close()
	if err := c.Start(); err != nil {
		return nil, err
	}
	return w.claim(c.Process.Pid), nil
}

// StartLocked implements [runc.ProcessMonitor].
func (r *Reaper) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return r.Start(c)
}

// Wait implements [runc.ProcessMonitor]. The process is reaped already when
// c.Wait is called, which then only joins the goroutines that copy its output.
func (r *Reaper) Wait(c *exec.Cmd, ch chan runc.Exit) (int, error) {
	e := <-ch
	_ = c.Wait()
	return e.Status, nil
}

// Finish runs a command to its end, however that is.
func (r *Reaper) Finish(c *exec.Cmd) error {
	exit, err := r.Start(c)
	if err == nil {
		_, err = r.Wait(c, exit)
	}
	return err
}

var _ runc.ProcessMonitor = (*Reaper)(nil)
