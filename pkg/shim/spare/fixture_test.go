package spare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/log"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == endIdle {
		wake()
		return
	}
	hold()
	log.L.Logger.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

// vm can be saved, and parked: its process stays.
type vm struct {
	*fake.VM
	d *driver
}

func (vm) Save(context.Context) ([]byte, error) { return []byte("devices"), nil }

func (v vm) Park(context.Context) error {
	v.d.parked.Add(1)
	return v.d.parkErr
}

// driver makes such VMs.
type driver struct {
	fake.Driver
	facts    string
	parkErr  error
	adoptErr error
	hangs    bool
	guest    guesttest.Wire
	parked   atomic.Int32
	adopted  []hypervisor.Spec
	group    *group // where spare VMs are started
}

func newDriver(t *testing.T) *driver {
	d := &driver{facts: "a\n"}
	d.Guest = func(v *fake.VM, ports map[string]net.Conn) {
		d.guest.Serve(ports, v.Spec.Snapshot == nil || v.Spec.Snapshot.Devices == nil)
	}
	t.Cleanup(d.Close)
	return d
}

func (d *driver) Fingerprint(spec hypervisor.Spec) (string, error) {
	return fmt.Sprintf("%s%d MiB\n", d.facts, spec.MemoryMiB), nil
}

func (d *driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	if s := spec.Snapshot; s != nil && s.Filled != nil {
		if err := s.Filled(); err != nil {
			return nil, err
		}
	}
	if g := d.group; g != nil && spec.Parked && !g.in {
		return nil, errors.New("it is not started in the group of spare VMs")
	}
	started, err := d.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return vm{started.(*fake.VM), d}, nil
}

// Adopt implements [hypervisor.Adopter]: the VM that was parked goes on as another one.
func (d *driver) Adopt(ctx context.Context, spec hypervisor.Spec, process hostproc.Process) (hypervisor.VM, error) {
	d.adopted = append(d.adopted, spec)
	if d.hangs {
		<-ctx.Done()
		return nil, errors.Join(ctx.Err(), process.Kill(context.WithoutCancel(ctx)))
	}
	if err := process.Kill(ctx); err != nil || d.adoptErr != nil {
		return nil, errors.Join(err, d.adoptErr)
	}
	return d.Driver.Start(ctx, spec)
}

// source has a template, and its pool no VM.
func source(t *testing.T, d *driver) (*Pool, *template.Source) {
	t.Helper()
	dir := t.TempDir()
	s := &template.Source{
		Store: &template.Store{Dir: filepath.Join(dir, "templates"), MaxBytes: math.MaxInt64},
		VM: template.VM{Driver: d, Version: "1", Spec: hypervisor.Spec{
			Machine: hypervisor.MachineQ35, SharedMemory: true, Size: hypervisor.Size{CPUs: 1, MemoryMiB: 64},
		}},
	}
	if _, err := s.Store.Make(t.Context(), s.VM); err != nil {
		t.Fatal(err)
	}
	p := PoolOf(dir)
	d.group = &group{}
	p.Group = d.group
	return p, s
}

// group is one without a host.
type group struct {
	fails     error
	in        bool // this process
	entered   int
	inherited []int
	pids      []int
}

func (g *group) Quit() error { return nil }

func (g *group) Enter(context.Context) error {
	if g.fails == nil {
		g.in = true
		g.entered++
	}
	return g.fails
}

func (g *group) Leave() error {
	g.in = false
	return nil
}

func (g *group) Inherit(pid int) error {
	g.inherited = append(g.inherited, pid)
	return nil
}

func (g *group) RemoveEmpty() {}

// Processes are those that it was told of, and those below the temporary directory that wait for VMs.
func (g *group) Processes() (pids []int, err error) {
	pids = slices.Clone(g.pids)
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(env), poolEnv+"="+os.TempDir()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// key is that of the source's template.
func key(t *testing.T, s *template.Source) template.Key {
	t.Helper()
	k, err := s.VM.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ready are the VMs of a pool.
func ready(t *testing.T, p *Pool) []*VM {
	t.Helper()
	all, err := p.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill makes VMs, and returns their pids.
func fill(t *testing.T, p *Pool, s *template.Source, n int) (pids []int) {
	t.Helper()
	pids, _ = fillWaiting(t, p, s, n)
	return pids
}

// fillWaiting is fill, and returns who waits for the VMs as well.
func fillWaiting(t *testing.T, p *Pool, s *template.Source, n int) (pids []int, waiter int) {
	t.Helper()
	if err := p.Fill(t.Context(), s, n, func(what string, pid int) {
		if what == "a spare VM" {
			pids = append(pids, pid)
			return
		}
		waiter = pid
	}); err != nil {
		t.Fatal(err)
	}
	return pids, waiter
}

// wantFiles fails unless a pool has these, beside its lock.
func wantFiles(t *testing.T, p *Pool, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(p.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Name() != lockFile {
			got = append(got, e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the pool has %q, want %q", got, want)
	}
}
