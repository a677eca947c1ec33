package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// ErrExited says that a process cannot be signalled any more.
var ErrExited = errors.New("process already finished")

// Container is what the OCI runtime needs to know of a container.
type Container struct {
	ID string
	// Bundle is the directory of its config.json. Pid files and logs are there too.
	Bundle string
}

// pidFile is where the OCI runtime writes the pid of a process.
func (c Container) pidFile(process string) string {
	return filepath.Join(c.Bundle, "pid-"+process)
}

// IO is the standard streams of a process.
type IO interface {
	Pipes() runc.IO              // nil with a terminal
	Console() runc.ConsoleSocket // nil without a terminal
	Attach() error               // takes the terminal that the console socket got
}

// Child is a process whose end is reported.
type Child struct {
	PID    int // in the guest's root pid namespace
	wait   func() int
	signal func(unix.Signal) error
}

// NewChild returns a child for a runtime that is not this package's. wait returns
// the exit status; signal fails with [ErrExited] after the end.
func NewChild(pid int, wait func() int, signal func(unix.Signal) error) *Child {
	return &Child{PID: pid, wait: wait, signal: signal}
}

// Wait returns the exit status as a shell reports it. It is to be called once.
func (c *Child) Wait() int { return c.wait() }

// Signal sends a signal to the process itself.
func (c *Child) Signal(sig unix.Signal) error { return c.signal(sig) }

// readPid reads a pid file.
func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
