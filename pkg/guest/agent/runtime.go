package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// runtimeDeadline bounds one invocation; a hook or a slow share may take long,
// but not indefinitely.
const runtimeDeadline = 2 * time.Minute

// ociRuntime runs the OCI runtime. Each method is exactly one invocation: they
// are what container operations cost most.
type ociRuntime struct {
	base   runc.Runc
	sealed *os.File // the program itself, kept open
}

// newRuntime installs the reaper as go-runc's monitor, which is a variable of
// that package because a process has one reaper.
func newRuntime(r *reaper) *ociRuntime {
	runc.Monitor = r
	return &ociRuntime{base: runc.Runc{Command: layout.RuntimePath, Root: layout.RuntimeState, LogFormat: runc.JSON}}
}

// seal makes the runtime run from a sealed copy in memory. crun and runc make
// such a copy of themselves in every invocation otherwise, so that no container
// can overwrite them through /proc/self/exe; one copy serves them all. The copy
// also keeps its pages, which an emulated CPU then need not translate again.
func (o *ociRuntime) seal() error {
	copied, err := sealedCopy(o.base.Command)
	if err != nil {
		return fmt.Errorf("seal %s: %w", o.base.Command, err)
	}
	o.sealed = copied
	o.base.Command = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), copied.Fd())
	return nil
}

// sealedCopy returns a copy of a program that nobody can write to any more.
func sealedCopy(path string) (*os.File, error) {
	source, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	fd, err := unix.MemfdCreate(filepath.Base(path), unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	writer := os.NewFile(uintptr(fd), path)
	defer writer.Close() // a program that is open for writing cannot be executed
	if _, err := io.Copy(writer, source); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// invoke runs one command of the runtime with a log of its own, from which the
// reason of a failure is read. name makes the log's name unique among what can
// run at once in a container.
func (o *ociRuntime) invoke(ctx context.Context, c *container, name string, run func(context.Context, *runc.Runc) error) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeDeadline)
	defer cancel()
	r := o.base
	r.Log = filepath.Join(c.dir, name+".log")
	err := run(ctx, &r)
	if err == nil {
		return nil
	}
	defer os.Remove(r.Log)
	return reason(r.Log, err)
}

func (o *ociRuntime) create(ctx context.Context, c *container, io *streams.IO) error {
	return o.invoke(ctx, c, "create", func(ctx context.Context, r *runc.Runc) error {
		return r.Create(ctx, c.id, c.dir, &runc.CreateOpts{
			IO: ioOrNull(io), PidFile: c.pidFile(hyperstart.InitProcess), ConsoleSocket: io.Console(),
		})
	})
}

func (o *ociRuntime) exec(ctx context.Context, c *container, p *process, spec specs.Process, io *streams.IO) error {
	return o.invoke(ctx, c, "exec-"+p.id, func(ctx context.Context, r *runc.Runc) error {
		return r.Exec(ctx, c.id, spec, &runc.ExecOpts{
			IO: ioOrNull(io), PidFile: c.pidFile(p.id), ConsoleSocket: io.Console(), Detach: true,
		})
	})
}

// ioOrNull keeps go-runc from reading the runtime's output through a pipe that
// a process with a terminal could hold open.
func ioOrNull(io *streams.IO) runc.IO {
	if pipes := io.Pipes(); pipes != nil {
		return pipes
	}
	null, err := runc.NewNullIO()
	if err != nil {
		return nil
	}
	return null
}

func (o *ociRuntime) start(ctx context.Context, c *container) error {
	return o.invoke(ctx, c, "start", func(ctx context.Context, r *runc.Runc) error { return r.Start(ctx, c.id) })
}

func (o *ociRuntime) delete(ctx context.Context, c *container, force bool) error {
	return o.invoke(ctx, c, "delete", func(ctx context.Context, r *runc.Runc) error {
		return r.Delete(ctx, c.id, &runc.DeleteOpts{Force: force})
	})
}

func (o *ociRuntime) pause(ctx context.Context, c *container) error {
	return o.invoke(ctx, c, "pause", func(ctx context.Context, r *runc.Runc) error { return r.Pause(ctx, c.id) })
}

func (o *ociRuntime) resume(ctx context.Context, c *container) error {
	return o.invoke(ctx, c, "resume", func(ctx context.Context, r *runc.Runc) error { return r.Resume(ctx, c.id) })
}

// update takes no name of its own: updates of one container are serialised by
// its caller.
func (o *ociRuntime) update(ctx context.Context, c *container, resources *specs.LinuxResources) error {
	return o.invoke(ctx, c, "update", func(ctx context.Context, r *runc.Runc) error {
		return r.Update(ctx, c.id, resources)
	})
}

// reason replaces go-runc's "did not terminate successfully" by what the
// runtime wrote to its log, and classifies it.
func reason(log string, err error) error {
	if msg := lastLogError(log); msg != "" {
		err = errors.New(msg)
	}
	class, exit := classify(err.Error())
	return &hyperstart.GuestError{Class: class, ExitStatus: exit, Err: err}
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
	// This is how crun says that the program is a directory, or worse.
	msg = strings.Replace(msg, "open executable: Operation not permitted", "open executable: not a regular file", 1)
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
	notExecPhrase  = regexp.MustCompile("(?i)(exec|executable).*(permission denied|exec format error|is a directory|not a directory|not a regular file)")
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

// nameProgram adds the program to a message that does not say which one could
// not be run.
func nameProgram(err error, program string) error {
	e, ok := errors.AsType[*hyperstart.GuestError](err)
	if ok && e.ExitStatus != 0 && !strings.Contains(err.Error(), program) {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return err
}

// readPid reads a pid file.
func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
