package spare

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// TestFill makes as many as are missing, each with random numbers of its own, and an interface and a
// container behind it.
func TestFill(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	k := key(t, s)
	if wanted, failed := p.Wanted(k, 2); !wanted || failed != "" {
		t.Errorf("an empty pool: %v, %q", wanted, failed)
	}
	d.guest.Calls()
	if pids := fill(t, p, s, 2); len(pids) != 2 || d.parked.Load() != 2 {
		t.Errorf("%d made, %d parked", len(pids), d.parked.Load())
	}
	once := []hyperstart.Code{hyperstart.Reseed, hyperstart.SetupInterface, hyperstart.SetupRoute, hyperstart.SetupRoute, hyperstart.WarmUp}
	if diff := cmp.Diff(append(once, once...), d.guest.Calls()); diff != "" {
		t.Errorf("the guests were told (-want +got):\n%s", diff)
	}
	if pids := fill(t, p, s, 2); len(pids) != 0 {
		t.Errorf("made too many: %v", pids)
	}
	if g := p.Group.(*group); g.entered != 2 || g.in {
		t.Errorf("the group was entered %d times, and left: %v", g.entered, !g.in)
	}
	if wanted, _ := p.Wanted(k, 2); wanted {
		t.Error("a full pool wants more")
	}
	for _, vm := range ready(t, p) {
		if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", vm.Process.PID)); string(score) != "1000\n" {
			t.Errorf("the VM %d has the score %q, %v", vm.Process.PID, score, err)
		}
	}
	if wanted, _ := p.Wanted(k, 0); wanted {
		t.Error("more are wanted where none are to be")
	}
	if vm := p.Claim(k); vm == nil {
		t.Fatal("none can be taken")
	}
	if wanted, _ := p.Wanted(k, 2); !wanted {
		t.Error("what was taken is not replaced")
	}
	if pids := fill(t, p, s, 2); len(pids) != 1 {
		t.Errorf("%d made for the one that was taken", len(pids))
	}
	if err := p.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ready(t, p); len(got) > 0 {
		t.Errorf("%d are left", len(got))
	}
}

// TestFillNames: no directory has the name of an earlier one, which the arguments of a pod's VMM have for
// as long as it lives, and the paths of sockets are as short as the configuration says.
func TestFillNames(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	seen := map[string]bool{}
	for range 5 {
		fill(t, p, s, 1)
		dir := d.Last().Spec.Dir
		if longest := len("/.spare/0123456789.part"); seen[dir] || len(dir)-len(filepath.Dir(p.Dir)) > longest {
			t.Errorf("made in %s, after %v", dir, seen)
		}
		seen[dir] = true
		if vm := p.Claim(key(t, s)); vm == nil || os.Rename(vm.dir, filepath.Join(t.TempDir(), "pod")) != nil {
			t.Fatal("it cannot be taken")
		}
	}
}

// TestRelease: what was claimed and is not used is another pod's.
func TestRelease(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 1)
	with := &Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}
	for range 2 {
		if err := with.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ready(t, p); len(got) != 1 || with.Claimed != nil {
		t.Errorf("ready: %v", got)
	}
	if err := (&Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}).Release(); err != nil || len(ready(t, p)) != 1 {
		t.Errorf("it cannot be taken again: %v", err)
	}
}

// TestAcquireHangs: a VM that does not go on takes a part of the time alone.
func TestAcquireHangs(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 1)
	with := &Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}
	d.hangs = true
	spec := s.VM.Spec
	spec.Dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	vm, _, err := with.Acquire(ctx, spec, math.MaxInt)
	if err != nil || ctx.Err() != nil {
		t.Fatalf("%v, %v", err, ctx.Err())
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFillFails: nothing is left but the reason, and it is not tried again soon.
func TestFillFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*driver)
		want  string
	}{
		{"start", func(d *driver) { d.Errs = map[fake.Step]error{fake.Start: errors.New("no vmm today")} }, "no vmm today"},
		{"dial", func(d *driver) { d.Errs = map[fake.Step]error{fake.Dial: errors.New("no port")} }, "prepare guest: dial: no port"},
		{"killed", func(d *driver) { d.Guest = func(v *fake.VM, _ map[string]net.Conn) { v.Die() } }, "vm ended by itself: qemu died of signal killed"},
		{"reseed", func(d *driver) { d.guest.Refuse = hyperstart.Reseed }, "prepare guest: "},
		{"warm up", func(d *driver) { d.guest.Refuse = hyperstart.WarmUp }, "prepare guest: "},
		{"unplug", func(d *driver) { d.Errs = map[fake.Step]error{fake.Unplug: errors.New("it stays")} }, "prepare guest: unplug: it stays"},
		{"group", nil, "no cgroup today"},
		{"park", func(d *driver) { d.parkErr = errors.New("it does not stop") }, "it does not stop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t)
			p, s := source(t, d)
			p.Idle = time.Hour
			if tt.setUp != nil {
				tt.setUp(d)
			} else {
				p.Group.(*group).fails = errors.New(tt.want)
			}
			err := p.Fill(t.Context(), s, 1, func(what string, _ int) {
				if what == "a spare VM" {
					t.Error("one was made")
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, failed := p.Wanted(key(t, s), 1); !strings.Contains(failed, tt.want) {
				t.Errorf("failed: %q", failed)
			}
			wantFiles(t, p, failedFile)
			if waiting, err := (waiters{p}).processes(); len(waiting) > 0 || err != nil {
				t.Errorf("%v wait for nothing: %v", waiting, err)
			}
			if last := d.Last(); last != nil {
				<-last.Done()
			}
			long := time.Now().Add(-2 * retryAfter)
			if err := os.Chtimes(filepath.Join(p.Dir, failedFile), long, long); err != nil {
				t.Fatal(err)
			}
			if _, failed := p.Wanted(key(t, s), 1); failed != "" {
				t.Error("it is not tried again later")
			}
		})
	}
}

// TestFillOther: one process makes VMs at a time, and those of another template end.
func TestFillOther(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 1)
	old := d.Last()
	unlock, err := p.lock()
	if err != nil {
		t.Fatal(err)
	}
	if pids := fill(t, p, s, 2); len(pids) > 0 {
		t.Error("two processes make VMs")
	}
	unlock()
	d.facts = "b\n"
	if _, err := s.Store.Make(t.Context(), s.VM); err != nil {
		t.Fatal(err)
	}
	if pids := fill(t, p, s, 1); len(pids) != 1 {
		t.Errorf("%d made", len(pids))
	}
	<-old.Done()
	if got := ready(t, p); len(got) != 1 || got[0].Key != key(t, s) {
		t.Errorf("ready: %+v", got)
	}
	if vm := p.Claim("0123"); vm != nil {
		t.Error("a VM of another template was taken")
	}
}

// TestAcquire: the pod gets the VM that was claimed, once, with its own names and in its own
// directory, and with the size that it is to have.
func TestAcquire(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	pids := fill(t, p, s, 1)
	with := &Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}
	if with.Claimed == nil || p.Claim(key(t, s)) != nil {
		t.Fatal("the VM cannot be taken, or twice")
	}
	spec := s.VM.Spec
	spec.ID, spec.Dir = "pod", t.TempDir()
	vm, refuse, err := with.Acquire(t.Context(), spec, math.MaxInt)
	if err != nil || refuse == nil {
		t.Fatal(err)
	}
	want := s.Spec(spec)
	want.Dir = filepath.Join(spec.Dir, store.SpareDir)
	if g := p.Group.(*group); !slices.Equal(g.inherited, []int{pids[0]}) {
		t.Errorf("moved to the sandbox's cgroup: %v, want %v", g.inherited, pids)
	}
	if diff := cmp.Diff([]hypervisor.Spec{want}, d.adopted); diff != "" {
		t.Errorf("adopted (-want +got):\n%s", diff)
	}
	wantFiles(t, p)
	refuse(errors.New("it does not answer"))
	if all, err := s.Store.List(); len(all) != 1 || err != nil {
		t.Errorf("its template is gone: %v", err)
	}
	again, _, err := with.Acquire(t.Context(), spec, math.MaxInt)
	if err != nil || len(d.adopted) != 1 {
		t.Errorf("it was adopted twice: %v", err)
	}
	for _, vm := range []hypervisor.VM{vm, again} {
		if err := vm.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestAcquireFails: a VM that cannot be taken over is ended, and the pod gets another one.
func TestAcquireFails(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, d *driver, claimed *VM, spec *hypervisor.Spec){
		"adopt":  func(_ *testing.T, d *driver, _ *VM, _ *hypervisor.Spec) { d.adoptErr = errors.New("no monitor") },
		"ended":  func(_ *testing.T, d *driver, _ *VM, _ *hypervisor.Spec) { d.Last().Die(); <-d.Last().Done() },
		"gone":   func(_ *testing.T, _ *driver, c *VM, _ *hypervisor.Spec) { _ = os.RemoveAll(c.dir) },
		"no dir": func(_ *testing.T, _ *driver, _ *VM, spec *hypervisor.Spec) { spec.Dir = "/no/directory" },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			p, s := source(t, d)
			fill(t, p, s, 1)
			old := d.Last()
			with := &Source{Template: s, Pool: p, Claimed: p.Claim(key(t, s))}
			spec := s.VM.Spec
			spec.Dir = t.TempDir()
			breakIt(t, d, with.Claimed, &spec)
			vm, _, err := with.Acquire(t.Context(), spec, math.MaxInt)
			if err != nil {
				t.Fatal(err)
			}
			if name == "gone" { // then nobody knows it
				old.Die()
			}
			<-old.Done()
			wantFiles(t, p)
			if _, err := os.Stat(filepath.Join(spec.Dir, store.SpareDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left in the sandbox: %v", err)
			}
			if err := vm.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// leave makes a directory with a process, as one that has died has left it.
func leave(t *testing.T, p *Pool, name string, recorded bool) *exec.Cmd {
	t.Helper()
	dir := filepath.Join(p.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read line", "-chardev", "socket,path="+strings.ReplaceAll(dir, ",", ",,")+"/port0.sock")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	process, err := hostproc.Of("qemu", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if recorded {
		if err := jsonfile.Write(filepath.Join(dir, store.SpareRecord), process); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

// TestSweep ends what nobody can take any more, and nothing else.
func TestSweep(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 1)
	k := string(key(t, s))
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	killed := map[string]*exec.Cmd{
		"made":       leave(t, p, "1.part", true),
		"unrecorded": leave(t, p, "2.part", false),
		"taken":      leave(t, p, fmt.Sprintf("%s.3.taken-%d-1", k, dead.Process.Pid), true),
		"pid reused": leave(t, p, fmt.Sprintf("%s.6.taken-%d-1", k, os.Getpid()), true),
	}
	self, err := hostproc.Of("test", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	mine := fmt.Sprintf("%s.4.taken-%d-%d", k, self.PID, self.Start)
	lives := leave(t, p, mine, true)
	ended := leave(t, p, k+".5", true)
	_ = ended.Process.Kill()
	_ = ended.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reaped := make(chan string)
	for name, cmd := range killed { // their ends are waited for as zombies, too
		go func() {
			_ = cmd.Wait()
			reaped <- name
		}()
	}
	if err := p.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	for range killed {
		<-reaped
	}
	for name, cmd := range killed {
		if ws := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ws.Signal() != unix.SIGKILL {
			t.Errorf("%s: %v", name, cmd.ProcessState)
		}
	}
	wantFiles(t, p, mine, filepath.Base(ready(t, p)[0].dir))
	if err := unix.Kill(lives.Process.Pid, 0); err != nil {
		t.Errorf("what a process has taken: %v", err)
	}
	_ = lives.Process.Kill()
	_ = lives.Wait()
	if err := p.Remove(ctx, func(template.Key) bool { return true }); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, p, mine)
}

// TestNone: where there is no pool nothing is to be done.
func TestNone(t *testing.T) {
	p := PoolOf(filepath.Join(t.TempDir(), "none"))
	p.Group = &group{}
	if err := errors.Join(p.Sweep(t.Context()), p.RemoveAll(t.Context())); err != nil {
		t.Error(err)
	}
	if p.Claim("0123") != nil || len(ready(t, p)) > 0 {
		t.Error("it has a VM")
	}
	if _, err := os.Stat(p.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}
