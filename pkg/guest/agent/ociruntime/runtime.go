package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// runtimeDeadline bounds one invocation; a hook or a slow share may take long,
// but not indefinitely.
const runtimeDeadline = 2 * time.Minute

// Runtime runs the OCI runtime, crun. A method makes no more than one invocation.
type Runtime struct {
	base   runc.Runc
	reaper *Reaper
	sealed *os.File // the program itself, kept open
}

// New installs the reaper as go-runc's monitor, which is a variable of that
// package because a process has one reaper.
func New(r *Reaper) *Runtime {
	runc.Monitor = r
	return &Runtime{base: runc.Runc{Command: layout.RuntimePath, Root: layout.RuntimeState, LogFormat: runc.JSON}, reaper: r}
}

// Seal makes the OCI runtime run from a sealed copy in memory. crun and runc make
// such a copy of themselves in every invocation otherwise, so that no container
// can overwrite them through /proc/self/exe; one copy serves them all. The copy
// also keeps its pages, which an emulated CPU then need not translate again.
func (r *Runtime) Seal() error {
	copied, err := sealedCopy(r.base.Command)
	if err != nil {
		return fmt.Errorf("seal %s: %w", r.base.Command, err)
	}
	r.sealed = copied
	r.base.Command = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), copied.Fd())
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

// invoke runs one command of the OCI runtime with a log of its own, from which the
// reason of a failure is read. name makes the log's name unique among what can
// run at once in a container.
func (r *Runtime) invoke(ctx context.Context, c Container, name string, run func(context.Context, *runc.Runc) error) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeDeadline)
	defer cancel()
	cmd := r.base
	cmd.Log = filepath.Join(c.Bundle, name+".log")
	err := run(ctx, &cmd)
	if err == nil {
		return nil
	}
	defer os.Remove(cmd.Log)
	return reason(cmd.Log, err)
}

// launch runs the OCI runtime and takes the terminal and the pid of a new process
// from it.
func (r *Runtime) launch(c Container, process string, io IO, invoke func() error) (*Child, error) {
	w := r.reaper.open()
	defer w.close()
	if err := invoke(); err != nil {
		return nil, err
	}
	if err := io.Attach(); err != nil {
		return nil, err
	}
	pid, err := readPid(c.pidFile(process))
	if err != nil {
		return nil, fmt.Errorf("read pid of process %s: %w", process, err)
	}
	return w.child(pid), nil
}

// Create creates a container with the config.json of its bundle. Its init process
// has everything set up and waits for Start, to execute program.
func (r *Runtime) Create(ctx context.Context, c Container, program string, io IO) (*Child, error) {
	child, err := r.launch(c, hyperstart.InitProcess, io, func() error {
		return r.invoke(ctx, c, "create", func(ctx context.Context, cmd *runc.Runc) error {
			return cmd.Create(ctx, c.ID, c.Bundle, &runc.CreateOpts{
				IO: pipesOrNull(io), PidFile: c.pidFile(hyperstart.InitProcess), ConsoleSocket: io.Console(),
			})
		})
	})
	if err != nil {
		return nil, nameProgram(err, program)
	}
	return child, nil
}

// Exec starts a process in a container, whose init process must not have ended.
func (r *Runtime) Exec(ctx context.Context, c Container, id string, spec *specs.Process, io IO) (*Child, error) {
	child, err := r.launch(c, id, io, func() error {
		return r.invoke(ctx, c, "exec-"+id, func(ctx context.Context, cmd *runc.Runc) error {
			return cmd.Exec(ctx, c.ID, *spec, &runc.ExecOpts{
				IO: pipesOrNull(io), PidFile: c.pidFile(id), ConsoleSocket: io.Console(), Detach: true,
			})
		})
	})
	if err != nil {
		return nil, nameProgram(err, spec.Args[0])
	}
	if err := os.Remove(c.pidFile(id)); err != nil {
		console.Logf("container %s: %v", c.ID, err)
	}
	return child, nil
}

// pipesOrNull keeps go-runc from reading the OCI runtime's output through a pipe
// that a process with a terminal could hold open.
func pipesOrNull(io IO) runc.IO {
	if pipes := io.Pipes(); pipes != nil {
		return pipes
	}
	null, err := runc.NewNullIO()
	if err != nil {
		return nil
	}
	return null
}

// Spawn runs the agent's own program by another name, args[0], in a control group.
// io has pipes.
func (r *Runtime) Spawn(cgroup string, args []string, io IO) (*Child, error) {
	return r.spawn(cgroup, &exec.Cmd{Path: "/proc/self/exe", Args: args, SysProcAttr: &syscall.SysProcAttr{}}, io)
}

// spawn starts a command in a control group. io has pipes; nil leaves its streams alone.
func (r *Runtime) spawn(cgroup string, cmd *exec.Cmd, io IO) (*Child, error) {
	group, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	var pipes runc.IO
	if io != nil {
		pipes = io.Pipes()
		pipes.Set(cmd)
	}
	exit, err := r.reaper.Start(cmd)
	if err != nil {
		return nil, err
	}
	if closer, ok := pipes.(runc.StartCloser); ok {
		if err := closer.CloseAfterStart(); err != nil {
			console.Logf("start %s: %v", cmd.Args[0], err)
		}
	}
	return r.reaper.child(cmd.Process.Pid, exit), nil
}

// Start lets the init process execute its program, as crun's start does: it waits for a
// byte from a FIFO, whose end is what tells crun that the container runs. A process
// less, which is most of what a start costs.
func (r *Runtime) Start(_ context.Context, c Container) error {
	path := filepath.Join(r.base.Root, c.ID, "exec.fifo")
	fifo, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) { // nobody waits
		return fmt.Errorf("start container %s: its init process has ended", c.ID)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	defer fifo.Close()
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	if _, err := fifo.Write([]byte{0}); err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	return nil
}

// Delete removes what the OCI runtime knows of a container that has ended, which is a
// directory, or, by force, all that there is of any. A container that it does not know is not an error.
func (r *Runtime) Delete(ctx context.Context, c Container, force bool) error {
	state := filepath.Join(r.base.Root, c.ID)
	if !force {
		return os.RemoveAll(state)
	}
	if !exists(state) {
		return nil
	}
	err := r.invoke(ctx, c, "delete", func(ctx context.Context, cmd *runc.Runc) error {
		return cmd.Delete(ctx, c.ID, &runc.DeleteOpts{Force: true})
	})
	return errors.Join(err, os.RemoveAll(state))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Pause freezes all processes of a container.
func (r *Runtime) Pause(ctx context.Context, c Container) error {
	return r.invoke(ctx, c, "pause", func(ctx context.Context, cmd *runc.Runc) error { return cmd.Pause(ctx, c.ID) })
}

// Resume is the reverse of Pause.
func (r *Runtime) Resume(ctx context.Context, c Container) error {
	return r.invoke(ctx, c, "resume", func(ctx context.Context, cmd *runc.Runc) error { return cmd.Resume(ctx, c.ID) })
}

// Update changes the limits of a container. Its caller serialises the updates of
// one container.
func (r *Runtime) Update(ctx context.Context, c Container, resources *specs.LinuxResources) error {
	return r.invoke(ctx, c, "update", func(ctx context.Context, cmd *runc.Runc) error {
		return cmd.Update(ctx, c.ID, resources)
	})
}
