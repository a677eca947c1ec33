package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

const (
	runtimePath  = "/usr/bin/crun"
	runtimeState = "/run/ccv2/oci" // the OCI runtime's own state
	// runtimeDeadline bounds one invocation; a hook or a slow share may take
	// long, but not for ever.
	runtimeDeadline = 2 * time.Minute
)

// ociRuntime runs the OCI runtime. Each method is exactly one invocation: they
// are what container operations cost most.
type ociRuntime struct {
	base runc.Runc
}

// newRuntime installs the reaper as go-runc's monitor, which is a variable of
// that package because a process has one reaper.
func newRuntime(r *reaper) *ociRuntime {
	runc.Monitor = r
	return &ociRuntime{base: runc.Runc{Command: runtimePath, Root: runtimeState, LogFormat: runc.JSON}}
}

// with returns the runtime with a log of its own in dir, from which the reason
// of a failure is read.
func (o *ociRuntime) with(dir string) *runc.Runc {
	r := o.base
	r.Log = filepath.Join(dir, "runtime.log")
	return &r
}

func (o *ociRuntime) create(ctx context.Context, c *container, io *stdio) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	err := o.with(c.dir).Create(ctx, c.id, c.dir, &runc.CreateOpts{
		IO: ioOrNull(io), PidFile: c.pidFile(hyperstart.InitProcess), ConsoleSocket: io.socket(),
	})
	return o.reason(c.dir, err)
}

func (o *ociRuntime) exec(ctx context.Context, c *container, p *process, spec specs.Process, io *stdio) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	err := o.with(c.dir).Exec(ctx, c.id, spec, &runc.ExecOpts{
		IO: ioOrNull(io), PidFile: c.pidFile(p.id), ConsoleSocket: io.socket(), Detach: true,
	})
	return o.reason(c.dir, err)
}

// ioOrNull keeps go-runc from reading the runtime's output through a pipe that
// a process with a terminal could hold open.
func ioOrNull(io *stdio) runc.IO {
	if !io.terminal {
		return io
	}
	null, err := runc.NewNullIO()
	if err != nil {
		return nil
	}
	return null
}

func (o *ociRuntime) start(ctx context.Context, c *container) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return o.reason(c.dir, o.with(c.dir).Start(ctx, c.id))
}

func (o *ociRuntime) delete(ctx context.Context, c *container, force bool) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return o.reason(c.dir, o.with(c.dir).Delete(ctx, c.id, &runc.DeleteOpts{Force: force}))
}

func (o *ociRuntime) pause(ctx context.Context, c *container) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return o.reason(c.dir, o.with(c.dir).Pause(ctx, c.id))
}

func (o *ociRuntime) resume(ctx context.Context, c *container) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return o.reason(c.dir, o.with(c.dir).Resume(ctx, c.id))
}

func (o *ociRuntime) update(ctx context.Context, c *container, r *specs.LinuxResources) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return o.reason(c.dir, o.with(c.dir).Update(ctx, c.id, r))
}

// reason replaces go-runc's "did not terminate successfully" by what the
// runtime wrote to its log, and classifies it.
func (o *ociRuntime) reason(dir string, err error) error {
	if err == nil {
		return nil
	}
	if msg := lastLogError(filepath.Join(dir, "runtime.log")); msg != "" {
		err = errors.New(msg)
	}
	ce := &commandError{err: err}
	ce.class, ce.exit = classify(err.Error())
	return ce
}

// lastLogError returns the last error in a log of JSON lines, "" for none.
func lastLogError(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	msg := ""
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var line struct{ Level, Msg string }
		if json.Unmarshal(s.Bytes(), &line) == nil && line.Level == "error" && line.Msg != "" {
			msg = line.Msg
		}
	}
	return strings.TrimSpace(msg)
}

// Exit statuses of a shell for a program that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Phrases of crun and runc when the program itself is the problem.
var (
	notFoundPhrase = regexp.MustCompile("(?i)executable file .*(not found|no such file)|(exec|open executable|stat) .*no such file or directory")
	notExecPhrase  = regexp.MustCompile("(?i)(exec|executable).*(permission denied|exec format error|is a directory)")
)

// classify finds out from the runtime's message whether the program could not
// be run. The class is invalid_argument and not not_found, which would read as
// if the container did not exist.
func classify(msg string) (hyperstart.ErrorClass, uint8) {
	switch {
	case notFoundPhrase.MatchString(msg):
		return hyperstart.ClassInvalidArgument, exitNotFound
	case notExecPhrase.MatchString(msg):
		return hyperstart.ClassInvalidArgument, exitNotExecutable
	}
	return hyperstart.ClassUnknown, 0
}

// readPid reads a pid file.
func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
