package placeholder

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// Placeholder is a container on the host. It is safe for concurrent use.
type Placeholder struct {
	program *os.File
	null    *os.File
	room    func() (int, error)
	place   func(pid int) error
	calls   chan func()   // for the thread
	ended   chan struct{} // closed when the thread is about to end
	mirror  mirror

	mu     sync.Mutex // guards the fields below; held while a process is started
	closed bool
	live   map[string]*child // those that nobody has ended
}

// New makes a placeholder in a network namespace, which stays the caller's; nil is the
// present one. The files of c are closed. The caller must Close the placeholder.
func New(netns *os.File, c Container) (*Placeholder, error) {
	defer c.Close()
	program, err := newProgramDir()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	p := &Placeholder{
		program: program, null: null, room: c.Room, place: c.Place,
		calls: make(chan func()), ended: make(chan struct{}), live: make(map[string]*child),
	}
	ready := make(chan error, 1)
	if err := osthread.GoInNetNS(netns, func() { p.serve(c, ready) }); err != nil {
		p.closeFiles()
		return nil, fmt.Errorf("start the placeholder of a container: %w", err)
	}
	if err := <-ready; err != nil {
		<-p.ended
		p.closeFiles()
		return nil, fmt.Errorf("start the placeholder of a container: %w", err)
	}
	return p, nil
}

// closeFiles closes what processes are started with.
func (p *Placeholder) closeFiles() { _ = errors.Join(p.program.Close(), p.null.Close()) }

// serve is the thread.
func (p *Placeholder) serve(c Container, ready chan<- error) {
	defer close(p.ended)
	host, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		ready <- err
		return
	}
	defer func() {
		// The mounts end here and now, not some time later with the thread: whoever
		// waits for that may want to remove what was mounted.
		_ = unix.Setns(int(host.Fd()), unix.CLONE_NEWNS)
		_ = host.Close()
	}()
	if err := separate(c); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for call := range p.calls {
		call()
	}
}

// Identity is what /proc says of a process. The strings may be anything: they are cut
// at a NUL, and where they are too long.
type Identity struct {
	Name     string   // of the program, 15 bytes
	Args     []string // 4 KiB in all
	UID, GID uint32
}

// child is a process.
type child struct {
	process   *os.Process
	signalled func(syscall.Signal)
	unheard   chan struct{} // closed when nobody wants its signals any more
	ended     chan struct{} // closed after the last signal, when it was waited for
}

// Start starts a process with a name that no other one has, and returns its pid. It ends
// with [Placeholder.End] or with the placeholder. Until then signalled gets the signals
// that others send to it, SIGKILL after its end. It must not block. After Close the
// error is errdefs.ErrFailedPrecondition.
func (p *Placeholder) Start(name string, id Identity, signalled func(syscall.Signal)) (pid int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, fmt.Errorf("the container has ended: %w", errdefs.ErrFailedPrecondition)
	}
	if p.live[name] != nil {
		return 0, fmt.Errorf("start a placeholder: process %q: %w", name, os.ErrExist)
	}
	var socket *os.File
	c := &child{signalled: signalled, unheard: make(chan struct{}), ended: make(chan struct{})}
	done := make(chan struct{})
	p.calls <- func() {
		defer close(done)
		c.process, socket, err = p.fork(id)
	}
	<-done
	if err == nil && p.place != nil { // not on the thread, which does not see the host's files
		if err = p.place(c.process.Pid); err != nil {
			_ = c.process.Kill()
			_, _ = c.process.Wait()
			_ = socket.Close()
		}
	}
	if err != nil {
		return 0, fmt.Errorf("start a placeholder for %q: %w", id.Name, err)
	}
	p.live[name] = c
	go c.watch(socket)
	return c.process.Pid, nil
}

// What is kept of the strings of an identity, in bytes.
const (
	nameLimit = 15
	argsLimit = 4 << 10
)

// arguments are those of a process in a guest as one on the host can have them.
func arguments(args []string) []string {
	room := argsLimit
	var kept []string
	for _, arg := range args {
		if room <= 0 {
			break
		}
		arg = argument(arg, room)
		room -= len(arg) + 1
		kept = append(kept, arg)
	}
	return kept
}

// argument is a string that ends where C's would, and is not longer than limit.
func argument(s string, limit int) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s[:min(len(s), limit)]
}

// socketPair has an end to read from, and one for a process. They are not a pipe: who
// looks for the streams that a shim has left open counts its pipes.
func socketPair() (r, w *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "signals"), os.NewFile(uintptr(fds[1]), "signals"), nil
}

// fork starts a process on the placeholder's thread, whose end ends it.
func (p *Placeholder) fork(id Identity) (*os.Process, *os.File, error) {
	r, w, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = w.Close() }()
	// A path below the working directory does not depend on the root directory.
	if err := unix.Fchdir(int(p.program.Fd())); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	name, args := argument(id.Name, nameLimit), arguments(id.Args)
	if len(args) == 0 {
		args = []string{name}
	}
	process, err := os.StartProcess("./"+programFile, args, &os.ProcAttr{
		Env: []string{name}, Files: []*os.File{p.null, p.null, p.null, signalFD: w},
		Sys: &syscall.SysProcAttr{
			Setsid: true, Pdeathsig: syscall.SIGKILL,
			Credential: &syscall.Credential{Uid: id.UID, Gid: id.GID},
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return process, r, nil
}

// watch reports the signals of a process until it has ended, and waits for it. Who kills
// the process means the one in the guest.
func (c *child) watch(socket *os.File) {
	defer close(c.ended)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		buf := make([]byte, 1)
		for {
			if n, err := socket.Read(buf); n == 0 || err != nil {
				return
			}
			if signal := syscall.Signal(buf[0]); signal >= 1 && signal <= maxSignal {
				c.report(signal)
			}
		}
	}()
	_, _ = c.process.Wait()
	// Somebody else may have got hold of the other end, and keep it.
	_ = socket.SetReadDeadline(time.Now())
	<-heard
	_ = socket.Close()
	c.report(syscall.SIGKILL)
}

// maxSignal is the last signal that there is.
const maxSignal = 64

// report reports a signal, unless nobody wants it.
func (c *child) report(signal syscall.Signal) {
	select {
	case <-c.unheard: // it is the placeholder that has killed the process
	default:
		c.signalled(signal)
	}
}

// kill ends a process.
func (c *child) kill() {
	close(c.unheard)
	_ = c.process.Kill() // it may have ended
}

// End ends a process and waits for that. One that does not exist, or was ended, is not
// an error.
func (p *Placeholder) End(name string) {
	p.mu.Lock()
	c := p.live[name]
	delete(p.live, name)
	p.mu.Unlock()
	if c != nil {
		c.kill()
		<-c.ended
	}
}

// Close ends all processes and the thread, and waits for that. It is idempotent.
func (p *Placeholder) Close() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	live := p.live
	p.live = nil
	p.mu.Unlock()
	if !first {
		<-p.ended
		return
	}
	p.mirror.stop()
	for _, c := range live {
		c.kill()
	}
	for _, c := range live {
		<-c.ended
	}
	close(p.calls)
	<-p.ended
	p.closeFiles()
}
