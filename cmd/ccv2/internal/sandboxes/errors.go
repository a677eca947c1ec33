package sandboxes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// Exit statuses of the commands.
const (
	StatusFailed   = 1
	StatusUsage    = 2
	StatusNotFound = 3 // no such sandbox
	StatusNotRoot  = 4
	StatusNoAnswer = 5 // the shim is dead, or hangs
)

// Error is an error with an exit status of its own.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// StatusOf is the exit status for an error.
func StatusOf(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return StatusFailed
}

// UsageError is an error of the command line.
func UsageError(format string, args ...any) error {
	return &Error{Status: StatusUsage, Err: fmt.Errorf(format, args...)}
}

// NeedRoot refuses others than root: nobody else can read a Record, or reach a shim.
func NeedRoot(euid int) error {
	if euid == 0 {
		return nil
	}
	return &Error{Status: StatusNotRoot, Err: fmt.Errorf("needs root: sandboxes and their consoles are root's alone, and this is uid %d; run it with sudo", euid)}
}

// Explain says what an error of a request means.
func Explain(r Record, err error) error {
	if _, own := errors.AsType[*Error](err); own { // it has nothing to do with the shim
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ttrpc.ErrClosed), errors.Is(err, io.EOF), isDial(err):
		return &Error{Status: StatusNoAnswer, Err: fmt.Errorf("sandbox %s: %s: %w", r.Name(), Silence(r), err)}
	}
	return fmt.Errorf("sandbox %s: %w (activity %s in the log)", r.Name(), printable.Error(errgrpc.ToNative(err), printable.MaxReport), Activity())
}

// isDial reports whether the shim could not be reached.
func isDial(err error) bool {
	_, ok := errors.AsType[*dialError](err)
	return ok
}

// Silence says why a shim does not answer, and what to do.
func Silence(r Record) string {
	shim := r.Saved.Shim
	if !shim.Alive() {
		return fmt.Sprintf("its shim (pid %d) is dead; containerd cleans up after it, or ccv2 gc --remove does", shim.PID)
	}
	p := Look("shim", shim.PID)
	if p.State == Stopped {
		return fmt.Sprintf("its shim (pid %d) is stopped by a signal; kill -CONT %d lets it go on", shim.PID, shim.PID)
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", shim.PID)); err == nil && len(cmdline) == 0 {
		return fmt.Sprintf("its shim (pid %d) just ends", shim.PID)
	}
	if _, err := os.Stat(SocketOf(r)); err != nil {
		return fmt.Sprintf("its shim (pid %d) has no debug service: it is of an older release, or just ends", shim.PID)
	}
	return fmt.Sprintf("its shim (pid %d) does not answer; kill -USR1 %d has it write its stacks to containerd's log, "+
		"and ccv2 kill --force %s ends it", shim.PID, shim.PID, r.Saved.ID)
}
