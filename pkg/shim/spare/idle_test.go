package spare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// wake is the process that ends VMs which nobody takes, in a group without a host.
func wake() {
	idle, err := time.ParseDuration(os.Args[2])
	if err != nil {
		panic(err)
	}
	if err := (waiters{&Pool{Dir: os.Getenv(poolEnv), Group: &group{}, Idle: idle}}).wake(context.Background()); err != nil {
		panic(err)
	}
}

// ended waits for a child, which may have become another program, and returns how it has ended.
func ended(t *testing.T, pid int) (status unix.WaitStatus) {
	t.Helper()
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			if err != nil {
				t.Error(err)
			}
			return status
		}
	}
}

// TestIdle: VMs that nobody takes end, each when it is due, and who waits for them ends with the last.
func TestIdle(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	p.Idle = time.Second
	pids, waiter := fillWaiting(t, p, s, 2)
	for _, pid := range pids {
		if err := (hostproc.Process{PID: pid}).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if status := ended(t, waiter); status.ExitStatus() != 0 {
		t.Errorf("who has ended them: %v", status)
	}
	wantFiles(t, p)
	// The next pod has others made.
	if wanted, failed := p.Wanted(key(t, s), 1); !wanted || failed != "" {
		t.Errorf("wanted: %v, %q", wanted, failed)
	}
}

// TestIdleTaken: what a shim has taken is left alone.
func TestIdleTaken(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 2)
	p.Idle = time.Nanosecond
	with := &Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}
	if with.Claimed == nil {
		t.Fatal("none can be taken")
	}
	if next, err := (waiters{p}).expire(t.Context()); next != p.Idle || err != nil {
		t.Errorf("the next look is after %s, %v", next, err)
	}
	if !with.Claimed.Process.Alive() || len(ready(t, p)) > 0 {
		t.Errorf("the one that is taken lives: %v; %d wait", with.Claimed.Process.Alive(), len(ready(t, p)))
	}
	if err := with.Release(); err != nil {
		t.Fatal(err)
	}
	if next, err := (waiters{p}).expire(t.Context()); next != 0 || err != nil {
		t.Errorf("the next look is after %s, %v", next, err)
	}
	wantFiles(t, p)
}

// TestNext: the oldest is the next to end, and none before its time.
func TestNext(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	if next, err := (waiters{p}).expire(t.Context()); next != 0 || err != nil {
		t.Errorf("without VMs: %s, %v", next, err)
	}
	fill(t, p, s, 2)
	for _, idle := range []time.Duration{time.Hour, 30 * 24 * time.Hour} {
		p.Idle = idle
		oldest := ready(t, p)[0].waited()
		next, err := (waiters{p}).expire(t.Context())
		if err != nil || next > idle-oldest || next < idle-oldest-time.Minute {
			t.Errorf("after %s: %s, %v, the oldest has waited for %s", idle, next, err, oldest)
		}
	}
	if got := ready(t, p); len(got) != 2 {
		t.Errorf("%d are left", len(got))
	}
	if made := ready(t, p)[0].Made(); time.Since(made) > time.Minute || time.Since(made) < 0 {
		t.Errorf("made %s", made)
	}
	unlock, err := p.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for idle, want := range map[time.Duration]time.Duration{time.Hour: busyAfter, time.Second: time.Second} {
		p.Idle = idle
		if next, err := (waiters{p}).expire(t.Context()); next != want || err != nil {
			t.Errorf("while VMs are made: %s, %v, want %s", next, err, want)
		}
	}
}

// waiting waits until a shell and its sleep wait for VMs of a pool.
func waiting(t *testing.T, p *Pool) (pids []int) {
	t.Helper()
	for {
		all, err := (waiters{p}).processes()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 2 {
			for _, waiter := range all {
				pids = append(pids, waiter.PID)
			}
			return pids
		}
		runtime.Gosched()
	}
}

// TestWaiter: there is one who waits for as long as there are VMs.
func TestWaiter(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	p.Idle = time.Hour
	_, first := fillWaiting(t, p, s, 1)
	if pids := waiting(t, p); !slices.Contains(pids, first) {
		t.Errorf("%v wait, and not %d", pids, first)
	}
	// It has the program that has started it, whatever becomes of the file.
	if now, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", first)); err != nil || !strings.HasSuffix(now, "spare.test") {
		t.Errorf("it becomes %s: %v", now, err)
	}
	_, second := fillWaiting(t, p, s, 1)
	if status := ended(t, first); status.ExitStatus() != 128+int(unix.SIGKILL) || second == 0 {
		t.Errorf("another one than the first waits: %v, %d", status, second)
	}
	for _, pid := range waiting(t, p) {
		if pid == second {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil { // its sleep
			t.Fatal(err)
		}
	}
	ended(t, second)
	if len(ready(t, p)) != 1 {
		t.Error("a VM ends when who waits for it is killed")
	}
	_, third := fillWaiting(t, p, s, 1)
	waiting(t, p)
	p.Idle = 0
	if _, none := fillWaiting(t, p, s, 1); none != 0 {
		t.Error("somebody waits for ever")
	}
	ended(t, third)
}

// TestWaiterEnds: who ends the VMs ends who waits for them, and nobody else.
func TestWaiterEnds(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	other := &Pool{Dir: p.Dir + "x", Group: p.Group, Idle: time.Hour}
	if err := os.Mkdir(other.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, other, s, 1)
	others := waiting(t, other)
	p.Idle = time.Hour
	for name, remove := range map[string]func() error{
		"sweep": func() error { return errors.Join(ready(t, p)[0].Process.Kill(t.Context()), p.Sweep(t.Context())) },
		"some":  func() error { return p.Remove(t.Context(), func(template.Key) bool { return true }) },
		"all":   func() error { return p.RemoveAll(t.Context()) },
	} {
		_, waiter := fillWaiting(t, p, s, 1)
		waiting(t, p)
		if err := remove(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := (waiters{p}).processes(); len(all) > 0 || err != nil {
			t.Errorf("%s leaves %v, %v", name, all, err)
		}
		ended(t, waiter)
	}
	if got := waiting(t, other); !slices.Equal(got, others) {
		t.Errorf("%v wait for other VMs, before it was %v", got, others)
	}
	if err := other.RemoveAll(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNoShell: where nobody can wait for a VM none is made, and there is a reason.
func TestNoShell(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	p.Idle = time.Hour
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	err := p.Fill(t.Context(), s, 1, func(what string, _ int) { t.Error(what) })
	if err == nil || !strings.Contains(err.Error(), "start who ends what nobody takes") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, p, failedFile)
	p.Idle = 0
	t.Setenv("PATH", path) // the VMM is a program, too
	if pids := fill(t, p, s, 1); len(pids) != 1 {
		t.Errorf("%d VMs that nobody is to end were made", len(pids))
	}
}
