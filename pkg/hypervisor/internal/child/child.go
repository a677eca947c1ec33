package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// stderrTail bounds what is kept of a process's own messages, in bytes.
const stderrTail = 4 << 10

// noSetUIDFixup is SECBIT_NO_SETUID_FIXUP of securebits.h.
const noSetUIDFixup = 1 << 2

// Process is a running or ended child in a process group of its own.
type Process struct {
	pid     int
	started time.Time
	done    chan struct{} // closed after exit is set and the process is reaped
	exit    hypervisor.Exit

	adopted *os.File // pidfd of a process that is no child; nil for a child

	mu     sync.Mutex // guards what follows, and keeps pid from being reused
	reaped bool
}

// Options say what is special about a child.
type Options struct {
	NetNS *os.File // its network namespace; nil for this process's
	// KeepCaps leaves the child its capabilities when it changes its user id.
	KeepCaps bool
	// Outlives leaves the child running when this process ends.
	Outlives bool
}

// Start runs binary with args. PATH is not searched. files become its descriptors
// 3, 4, … and, like the network namespace, stay the caller's. The environment is
// minimal and the working directory the root.
//
// PR_SET_PDEATHSIG makes the kernel kill the child when the *thread* that
// started it ends, so the child has one of its own, which does nothing but wait
// for it.
func Start(opts Options, binary string, args []string, files ...*os.File) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	err := osthread.GoInNetNS(opts.NetNS, func() {
		if opts.KeepCaps { // the child has the thread's bits
			if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetUIDFixup, 0, 0, 0); err != nil {
				started <- fmt.Errorf("keep capabilities over a change of the user id (CAP_SETPCAP is needed): %w", err)
				return
			}
		}
		stderr, err := newStderr()
		if err != nil {
			started <- err
			return
		}
		cmd := &exec.Cmd{
			Path:        binary,
			Args:        append([]string{binary}, args...),
			Env:         []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Dir:         "/",
			Stderr:      stderr.child,
			ExtraFiles:  files,
			SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
		}
		if opts.Outlives {
			cmd.SysProcAttr.Pdeathsig = 0
		}
		if err = keepDescriptors(); err == nil {
			err = cmd.Start()
		}
		stderr.childHasIt()
		if err == nil {
			p.pid, p.started = cmd.Process.Pid, time.Now()
		}
		started <- err
		if err != nil {
			_ = stderr.end()
			return
		}
		p.exit = p.wait(cmd)
		p.exit.Stderr = stderr.end()
		close(p.done)
	})
	if err == nil {
		err = <-started
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", binary, err)
	}
	return p, nil
}

// keepDescriptors keeps from children what this process was started with, such as the lock of a script:
// one that outlives it would hold it.
func keepDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd) // one that was closed meanwhile does not mind
		}
	}
	return nil
}

// PID is the process id; it is not reused before Done is closed.
func (p *Process) PID() int { return p.pid }

// Started is when the process was started.
func (p *Process) Started() time.Time { return p.started }

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the process ended: the zero value before Done is closed.
func (p *Process) Exit() hypervisor.Exit {
	select {
	case <-p.done:
		return p.exit
	default:
		return hypervisor.Exit{}
	}
}

// Kill sends SIGKILL to the process group, without waiting. It is idempotent, also
// after the end of the process.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped { // the number may be someone else's
		return nil
	}
	if p.adopted != nil {
		return signalAdopted(p)
	}
	if err := unix.Kill(-p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", p.pid, err)
	}
	return nil
}

// wait returns when the process has ended and was reaped. Its own children are
// killed first: while it is a zombie the group's number is still theirs, and
// they may hold its standard error open, which would keep Wait waiting.
func (p *Process) wait(cmd *exec.Cmd) hypervisor.Exit {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = p.Kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = cmd.Wait() // the state says more than the error
	p.reaped = true
	// Where this process is a subreaper, as shims are, the orphans are its own
	// to reap; elsewhere there are none.
	for {
		_, err := unix.Wait4(-p.pid, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return exitOf(cmd.ProcessState)
}

// exitOf translates a wait status.
func exitOf(state *os.ProcessState) hypervisor.Exit {
	var e hypervisor.Exit
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = int(ws.Signal())
		return e
	}
	e.Code = state.ExitCode()
	return e
}
