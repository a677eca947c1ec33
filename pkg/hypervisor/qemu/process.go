package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// stderrTail bounds what is kept of QEMU's own messages, in bytes.
const stderrTail = 4 << 10

// process is one QEMU process that dies with this one.
type process struct {
	pid     int
	started time.Time
	done    chan struct{} // closed after exit is set and the process is reaped
	exit    hypervisor.Exit
	proc    *os.Process
}

// launch starts binary with the given extra files, which stay the caller's.
//
// PR_SET_PDEATHSIG makes the kernel kill the child when the *thread* that
// started it ends, so that thread is kept: a goroutine locked to it starts the
// child and does nothing but wait for it.
func launch(binary string, args []string, files ...*os.File) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		stderr := &tailBuffer{limit: stderrTail}
		cmd := &exec.Cmd{
			Path:        binary,
			Args:        append([]string{binary}, args...),
			Env:         []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Dir:         "/",
			Stderr:      stderr,
			ExtraFiles:  files,
			SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
		}
		err := cmd.Start()
		if err == nil {
			p.pid, p.proc, p.started = cmd.Process.Pid, cmd.Process, time.Now()
		}
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // the state says more than the error
		p.exit = exitOf(cmd.ProcessState, stderr.String())
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", binary, err)
	}
	return p, nil
}

// exitOf translates a wait status.
func exitOf(state *os.ProcessState, stderr string) hypervisor.Exit {
	e := hypervisor.Exit{Stderr: stderr}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = int(ws.Signal())
		return e
	}
	e.Code = state.ExitCode()
	return e
}

// kill sends SIGKILL. A process that has ended already is no error.
func (p *process) kill() error {
	if err := p.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ended describes the exit for an error message.
func ended(e hypervisor.Exit) error {
	how := fmt.Sprintf("exited with code %d", e.Code)
	if e.Signal != 0 {
		how = "killed by " + syscall.Signal(e.Signal).String()
	}
	if e.Stderr != "" {
		how += ": " + strings.Join(strings.Fields(e.Stderr), " ")
	}
	return fmt.Errorf("qemu %s: %w", how, errdefs.ErrUnavailable)
}

// tailBuffer keeps the last bytes that were written to it. os/exec writes from
// one goroutine and joins it in Wait, so it needs no lock.
type tailBuffer struct {
	limit int
	data  []byte
	cut   bool
}

// Write implements io.Writer.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns whole lines, without the first one if that was cut.
func (t *tailBuffer) String() string {
	s := string(t.data)
	if t.cut {
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.TrimSpace(s)
}
