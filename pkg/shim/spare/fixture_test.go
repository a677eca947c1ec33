package spare

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/log"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

func TestMain(m *testing.M) {
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
	refuse   hyperstart.Code
	parked   atomic.Int32
	adopted  []hypervisor.Spec

	mu    sync.Mutex        // guards calls
	calls []hyperstart.Code // of the guests
}

func newDriver(t *testing.T) *driver {
	d := &driver{facts: "a\n"}
	d.Guest = d.guest
	t.Cleanup(d.Close)
	return d
}

func (d *driver) Fingerprint(hypervisor.Spec) (string, error) { return d.facts, nil }

func (d *driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	if s := spec.Snapshot; s != nil && s.Filled != nil {
		if err := s.Filled(); err != nil {
			return nil, err
		}
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

// guest answers every command; of one that has booted it says READY first.
func (d *driver) guest(v *fake.VM, ports map[string]net.Conn) {
	ctl := ports[layout.CtlPort]
	if ctl == nil { // of a VM that nobody asks
		return
	}
	tty := make(chan struct{})
	go func() {
		defer close(tty)
		_, _ = io.Copy(io.Discard, ports[layout.TTYPort])
	}()
	defer func() { <-tty }()
	say := func(code hyperstart.Code, payload []byte) {
		_, _ = ctl.Write(hyperstart.AppendCtl(nil, code, payload))
	}
	if s := v.Spec.Snapshot; s == nil || s.Devices == nil {
		say(hyperstart.Ready, nil)
	}
	r := hyperstart.NewCtlReader(ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		switch code {
		case hyperstart.GetVersion:
			say(hyperstart.Ack, binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2))
		case hyperstart.Call:
			ticket, inner, _, _ := hyperstart.ParseCall(payload)
			d.mu.Lock()
			d.calls = append(d.calls, inner)
			d.mu.Unlock()
			say(hyperstart.Ack, nil)
			if inner == d.refuse {
				say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Error, []byte(`{"message":"not today"}`)))
				continue
			}
			say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Ack, nil))
		default:
			say(hyperstart.Ack, nil)
		}
	}
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
	return PoolOf(dir), s
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
	if err := p.Fill(t.Context(), s, n, func(pid int) { pids = append(pids, pid) }); err != nil {
		t.Fatal(err)
	}
	return pids
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
