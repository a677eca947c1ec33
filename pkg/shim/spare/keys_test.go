package spare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// like is a source of VMs that are another one's but for what change does, with a template.
func like(t *testing.T, s *template.Source, change func(*template.VM)) *template.Source {
	t.Helper()
	other := *s
	change(&other.VM)
	if _, err := other.Store.Make(t.Context(), other.VM); err != nil {
		t.Fatal(err)
	}
	return &other
}

// pod does what a shim does with a pool: it takes a VM, and has those made that are wanted.
func pod(t *testing.T, p *Pool, s *template.Source, n int) (from string, made int) {
	t.Helper()
	from = "template"
	if vm := p.Claim(key(t, s)); vm != nil {
		from = "spare"
		if err := vm.end(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wanted, failed := p.Wanted(key(t, s), n)
	if failed != "" {
		t.Fatal(failed)
	}
	if wanted {
		made = len(fill(t, p, s, n))
	}
	return from, made
}

// TestTwoKeys: pods of two sizes, or of two versions of ccv2, have one pool. It is not remade in
// turns, and has VMs of both where it has more than one.
func TestTwoKeys(t *testing.T) {
	for name, change := range map[string]func(*template.VM){
		"sizes":    func(vm *template.VM) { vm.Spec.MemoryMiB = 128 },
		"versions": func(vm *template.VM) { vm.Version = "2" },
	} {
		for _, tt := range []struct {
			n    int
			want []string // of pods in turns, the first of which finds an empty pool
		}{
			{1, []string{"template", "template", "spare", "template", "spare", "template", "spare", "template"}},
			{2, []string{"template", "template", "spare", "spare", "spare", "spare", "spare", "spare"}},
		} {
			t.Run(fmt.Sprint(name, tt.n), func(t *testing.T) {
				d := newDriver(t)
				p, a := source(t, d)
				b := like(t, a, change)
				var got []string
				sum := 0
				for i := range tt.want {
					from, made := pod(t, p, []*template.Source{a, b}[i%2], tt.n)
					got = append(got, from)
					sum += made
				}
				spares := 0
				for _, from := range got {
					if from == "spare" {
						spares++
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("pods have VMs from (-want +got):\n%s", diff)
				}
				if sum > spares+2*tt.n-1 { // a full pool, and one that gave way
					t.Errorf("%d VMs were made for %d pods", sum, spares)
				}
				if err := p.RemoveAll(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestKeyReplaced: a key that is wanted again and again gets the place of one that is not; what has
// no template any more has none.
func TestKeyReplaced(t *testing.T) {
	d := newDriver(t)
	p, a := source(t, d)
	b := like(t, a, func(vm *template.VM) { vm.Version = "2" })
	fill(t, p, a, 1)
	for i, want := range []struct {
		from string
		made int
	}{{"template", 0}, {"template", 1}, {"spare", 1}} {
		if from, made := pod(t, p, b, 1); from != want.from || made != want.made {
			t.Errorf("pod %d: from the %s, %d made, want %+v", i, from, made, want)
		}
	}
	if err := b.Store.Remove(key(t, b)); err != nil {
		t.Fatal(err)
	}
	fill(t, p, a, 2)
	if all := ready(t, p); len(all) != 2 || count(all, key(t, a)) != 2 {
		t.Errorf("there are %d, %d of them with a template", len(all), count(all, key(t, a)))
	}
}

// TestSurplus: what is too many ends.
func TestSurplus(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 3)
	fill(t, p, s, 1)
	all := ready(t, p)
	if len(all) != 1 {
		t.Fatalf("%d are left of three", len(all))
	}
}

// TestOthers: the VMs of another directory of sandboxes are seen.
func TestOthers(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	other := &Pool{Dir: filepath.Join(t.TempDir(), "a,b", ".spare"), Group: p.Group}
	if err := os.MkdirAll(other.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := leave(t, other, "1.part", true)
	vm := filepath.Join(other.Dir, string(key(t, s))+".1")
	if err := os.Rename(filepath.Join(other.Dir, "1.part"), vm); err != nil {
		t.Fatal(err)
	}
	d.group.pids = []int{os.Getpid(), cmd.Process.Pid}
	for range 2 {
		if others, err := p.Others(); err != nil || len(others) != 1 || others[0].Dir != other.Dir {
			t.Fatalf("others: %v, %v", others, err)
		}
		fill(t, p, s, 1)
	}
	if others, err := other.Others(); err != nil || len(others) != 0 {
		t.Errorf("others than that: %v, %v", others, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// makerEnv makes the test binary a process that makes VMs in a pool.
const makerEnv = "CCV2_TEST_MAKER"

// hold is that process, if it is to be it.
func hold() {
	dir := os.Getenv(makerEnv)
	if dir == "" {
		return
	}
	if _, err := (&Pool{Dir: dir}).lock(); err != nil {
		panic(err)
	}
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
}

// TestRemoveWhileMade: who makes VMs ends before they are removed, and is no reason to make others.
func TestRemoveWhileMade(t *testing.T) {
	for name, remove := range map[string]func(context.Context, *Pool) error{
		"all": func(ctx context.Context, p *Pool) error { return p.RemoveAll(ctx) },
		"some": func(ctx context.Context, p *Pool) error {
			return p.Remove(ctx, func(template.Key) bool { return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			p, s := source(t, d)
			fill(t, p, s, 1)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), makerEnv+"="+p.Dir)
			in, inErr := cmd.StdinPipe()
			out, outErr := cmd.StdoutPipe()
			if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, err := out.Read(make([]byte, 1)); err != nil { // it has the lock
				t.Fatal(err)
			}
			if wanted, _ := p.Wanted(key(t, s), 2); wanted {
				t.Error("a second maker is wanted")
			}
			vm := leave(t, p, "1.part", true)
			ended := make(chan struct{})
			go func() { defer close(ended); _ = vm.Wait() }()
			if dead, err := p.Dead(); len(dead) > 0 || err != nil {
				t.Errorf("what is being made is dead: %v, %v", dead, err)
			}
			if err := remove(t.Context(), p); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the maker was not ended")
			}
			<-ended
			wantFiles(t, p)
			if _, err := os.Stat(p.Dir); (err == nil) == (name == "all") {
				t.Errorf("the pool: %v", err)
			}
		})
	}
}

// TestDead are those that Sweep ends.
func TestDead(t *testing.T) {
	d := newDriver(t)
	p, s := source(t, d)
	fill(t, p, s, 2)
	want := []string{}
	for _, name := range []string{"7.part", string(key(t, s)) + ".8"} {
		cmd := leave(t, p, name, true)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		want = append(want, filepath.Join(p.Dir, name))
	}
	dead, err := p.Dead()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, vm := range dead {
		got = append(got, vm.Dir())
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dead (-want +got):\n%s", diff)
	}
	if err := p.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dead, err := p.Dead(); len(dead) > 0 || err != nil || len(ready(t, p)) != 2 {
		t.Errorf("afterwards: %v, %v, and %d are ready", dead, err, len(ready(t, p)))
	}
}
