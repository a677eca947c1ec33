package spare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
)

// waiters are the processes that end the VMs of a pool which no pod takes: a shell, as a Go program that
// sleeps would take ten times as much, and its sleep. The shell becomes the program that has started it then,
// which it has as a descriptor: that stays the same one when the file is replaced.
type waiters struct{ *Pool }

const (
	shell  = "/bin/sh"
	script = `"$0" "$1" && exec /proc/self/fd/3 "$2" "$3"`
	// endIdle is the first argument of that program, and how long a VM waits the other one.
	endIdle = "end-idle-spares"
	// poolEnv names the pool in the environment of all these processes, by which they are found.
	poolEnv = "CCV2_SPARE_POOL"
)

const (
	// busyAfter is when to look again at a pool of which somebody makes or removes VMs.
	busyAfter = 10 * time.Second
	// shellEnds is how long a shell may need for it.
	shellEnds = time.Second
	// endLimit bounds how long the ends of VMs take.
	endLimit = time.Minute
)

// idle reports whether a VM has waited for a pod for too long.
func (p *Pool) idle(vm *VM) bool { return p.Idle > 0 && vm.waited() >= p.Idle }

// waited is how long ago the VMM was started. It counts the time that the host was suspended,
// and no step of its clock.
func (vm *VM) waited() time.Duration {
	const ticks = 100 // for a second, on every kernel
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // never fails
	return time.Duration(now.Nano()) - time.Duration(vm.Process.Start)*(time.Second/ticks)
}

// next is when a VM is due, from now. What is there though it was due, as a shim has just taken
// it or as it cannot be ended, is to be looked at again. Without a VM it is 0.
func (w waiters) next() (next time.Duration, err error) {
	all, err := w.all()
	for _, vm := range all {
		left := w.Idle - vm.waited()
		if left <= 0 {
			left = w.Idle
		}
		if next == 0 || left < next {
			next = left
		}
	}
	return next, err
}

// args are the arguments of the shell that waits for some time.
func (w waiters) args(after time.Duration) ([]string, error) {
	sleep, err := exec.LookPath("sleep")
	seconds := (after + time.Second - 1) / time.Second // not each sleep takes a fraction
	return []string{shell, "-c", script, sleep, strconv.Itoa(int(seconds)), endIdle, w.Idle.String()}, err
}

// start starts the process that ends the VMs which nobody takes, in the place of an earlier one,
// whose time may be another one.
func (w waiters) start(ctx context.Context, started func(what string, pid int)) error {
	if err := w.end(ctx); err != nil || w.Idle == 0 {
		return err
	}
	after, err := w.next()
	if err != nil {
		return err
	}
	if after == 0 {
		after = w.Idle
	}
	args, err := w.args(after)
	if err != nil {
		return fmt.Errorf("start who ends what nobody takes: %w", err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	cmd := &exec.Cmd{
		Path: shell, Args: args, Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH"), poolEnv + "=" + w.Dir},
		ExtraFiles: []*os.File{self}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start who ends what nobody takes: %w", err)
	}
	started("waits "+w.Idle.String()+" for pods", cmd.Process.Pid)
	return cmd.Process.Release()
}

// processes are all of them but this one.
func (w waiters) processes() (all []hostproc.Process, err error) {
	pids, err := w.Group.Processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		process, err := hostproc.Of("process that ends spare vms", pid)
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == poolEnv+"="+w.Dir }) {
			all = append(all, process)
		}
	}
	return all, nil
}

// end ends them.
func (w waiters) end(ctx context.Context) error {
	for { // one that just starts the other
		all, err := w.processes()
		if err != nil || len(all) == 0 {
			return err
		}
		child, parent := family(all)
		if err := all[child].Kill(ctx); err != nil {
			return err
		}
		if parent < 0 {
			continue
		}
		// The shell waits for its sleep, and ends. Who inherits a child, as a shim does, may not wait for it.
		limited, cancel := context.WithTimeout(ctx, shellEnds)
		_ = all[parent].Wait(limited) // or it is killed
		cancel()
	}
}

// family is a process of some whose parent is another one, or the first, without one.
func family(all []hostproc.Process) (child, parent int) {
	for child = range all {
		for parent = range all {
			if all[parent].IsParent(all[child].PID) {
				return child, parent
			}
		}
	}
	return 0, -1
}

// endUseless ends them unless there are VMs.
func (w waiters) endUseless(ctx context.Context) error {
	if all, err := w.all(); err != nil || len(all) > 0 {
		return err
	}
	return w.end(ctx)
}

// Wake is what a program that fills pools does first: with these arguments it is the process that ends
// the VMs which no pod has taken, and waits again if others are left. It reports whether it was that.
func Wake(args []string) bool {
	const count = 3
	if len(args) != count || args[1] != endIdle {
		return false
	}
	idle, err := time.ParseDuration(args[2])
	if err != nil {
		return true
	}
	w := waiters{&Pool{Dir: os.Getenv(poolEnv), Group: &hostcgroup.Aside{}, Idle: idle}}
	if err := w.wake(context.Background()); err != nil {
		w.setFailed(err) // for the log of the next shim
	}
	return true
}

func (w waiters) wake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	next, err := w.expire(ctx)
	if err != nil { // what is due is due again then
		w.setFailed(err)
		next = w.Idle
	}
	if next == 0 {
		return w.Group.Quit()
	}
	args, err := w.args(next)
	if err != nil {
		return err
	}
	return unix.Exec(shell, args, os.Environ())
}

// expire ends the VMs that are due, and returns when others are.
func (w waiters) expire(ctx context.Context) (next time.Duration, err error) {
	if _, err := os.Stat(w.Dir); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	unlock, err := w.lock()
	if errors.Is(err, errdefs.ErrUnavailable) {
		return min(busyAfter, w.Idle), nil
	}
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := w.clean(ctx, w.idle); err != nil {
		w.setFailed(err)
	}
	return w.next()
}
