package podvm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// restoring is a source of VMs that go on from another one until one was refused.
type restoring struct {
	Source
	agent *agent

	mu      sync.Mutex // guards refused
	refused []error
}

func (r *restoring) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (hypervisor.VM, func(error), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agent.restored.Store(limit > 0)
	vm, _, err := r.Source.Acquire(ctx, spec, limit)
	if limit == 0 {
		return vm, nil, err
	}
	return vm, func(cause error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.refused = append(r.refused, cause)
	}, err
}

// restoredFixture has such a source. commands are what the guests were told, in order.
func restoredFixture(t *testing.T) (f *fixture, source *restoring, commands func() []hyperstart.Code) {
	t.Helper()
	f = newFixture(t)
	source = &restoring{Source: f.opts.Source, agent: f.agent}
	f.with(func(o *Options) {
		o.Source = source
		o.Config.BootTimeout = 2 * time.Second
	})
	var mu sync.Mutex
	var all []hyperstart.Code
	f.agent.noted = func(code hyperstart.Code) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, code)
	}
	return f, source, func() []hyperstart.Code {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// TestRestored: a guest that need not boot gets random numbers of its own before anything
// else.
func TestRestored(t *testing.T) {
	f, source, commands := restoredFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	want := []hyperstart.Code{hyperstart.Ping, hyperstart.GetVersion, hyperstart.Reseed, hyperstart.StartPod}
	if got := commands(); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("the guest was told %v, want %v first", got, want)
	}
	if len(source.refused) > 0 {
		t.Errorf("refused: %v", source.refused)
	}
}

// TestRestoredIsRefused: a guest that should not have to boot, and is of no use, is replaced by
// one that boots.
func TestRestoredIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*fixture)
		want  string // of the cause
	}{
		{"no answer", func(f *fixture) {
			f.agent.noted = func(hyperstart.Code) { f.agent.ignore[hyperstart.Ping] = f.agent.restored.Load() }
		}, "deadline exceeded"},
		{"random numbers refused", func(f *fixture) { f.agent.answer = refuse(hyperstart.Reseed) }, "not today"},
		{"an original guest", func(f *fixture) {
			f.agent.answer = func(code hyperstart.Code) (hyperstart.Code, []byte) {
				if code == hyperstart.GetVersion && f.agent.restored.Load() {
					return hyperstart.Ack, []byte{0, 0, 0x10, 0x93} // hyperhq
				}
				return 0, nil
			}
		}, "takes no random numbers"},
		{"booted again", func(f *fixture) {
			f.agent.noted = func(hyperstart.Code) {
				if f.agent.restored.Load() {
					f.agent.say(hyperstart.Ready, nil)
				}
			}
		}, "READY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, source, commands := restoredFixture(t)
			tt.setUp(f)
			if err := f.boot(bundle.Pod{}); err != nil {
				t.Fatal(err)
			}
			if len(source.refused) != 1 || !strings.Contains(source.refused[0].Error(), tt.want) {
				t.Errorf("refused: %v, want one with %q", source.refused, tt.want)
			}
			if cause := f.Err(); cause != nil {
				t.Errorf("the machine is lost: %v", cause)
			}
			if err := f.Guest().Sync(t.Context()); err != nil {
				t.Errorf("the guest that boots: %v, after %v", err, commands())
			}
		})
	}
}

// TestRestoredIsKilled: who kills the VMM ends the boot, as that of any other VM.
func TestRestoredIsKilled(t *testing.T) {
	for _, during := range []hyperstart.Code{hyperstart.Ping, hyperstart.Reseed} {
		t.Run(during.String(), func(t *testing.T) {
			f, source, _ := restoredFixture(t)
			f.agent.noted = func(code hyperstart.Code) {
				if code == during {
					f.driver.Last().Die()
					<-f.driver.Last().Done()
				}
			}
			if err := f.boot(bundle.Pod{}); err == nil || !strings.Contains(err.Error(), "vm ended by itself: qemu died of signal killed") {
				t.Errorf("error %v", err)
			}
			if len(source.refused) > 0 {
				t.Errorf("refused: %v", source.refused)
			}
		})
	}
}

// TestRestoredIsRefusedAndNothingBoots: the error is that of the boot.
func TestRestoredIsRefusedAndNothingBoots(t *testing.T) {
	f, source, _ := restoredFixture(t)
	f.agent.answer = func(code hyperstart.Code) (hyperstart.Code, []byte) {
		if code == hyperstart.Reseed {
			f.driver.Errs = map[fake.Step]error{fake.Start: errors.New("no vmm today")}
		}
		return refuse(hyperstart.Reseed)(code)
	}
	if err := f.boot(bundle.Pod{}); err == nil || !strings.Contains(err.Error(), "no vmm today") {
		t.Errorf("error %v", err)
	}
	if len(source.refused) != 1 {
		t.Errorf("refused: %v", source.refused)
	}
}

// TestRestoredOnASlowHost: what is late where one that boots is late as well is not refused, and
// one that boots has its whole time.
func TestRestoredOnASlowHost(t *testing.T) {
	f, source, _ := restoredFixture(t)
	f.agent.noted = func(hyperstart.Code) { f.agent.ignore[hyperstart.Ping] = f.agent.restored.Load() }
	f.with(func(o *Options) { o.Config.BootTimeout = 4 * time.Second })
	const slow = 3*time.Second + 100*time.Millisecond // more than what would be left of it
	starts := 0
	f.driver.Starting = func(ctx context.Context) error {
		if starts++; starts == 1 {
			return nil
		}
		select {
		case <-time.After(slow):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	if len(source.refused) > 0 {
		t.Errorf("refused: %v", source.refused)
	}
}

// resized is a source of VMs that were made larger.
type resized struct{ *restoring }

func (r resized) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (hypervisor.VM, func(error), error) {
	vm, refuse, err := r.restoring.Acquire(ctx, spec, limit)
	if err == nil && limit > 0 {
		err = vm.(hypervisor.Resizer).Resize(ctx, hypervisor.Size{CPUs: spec.CPUs + 2, MemoryMiB: spec.MemoryMiB + 100})
	}
	return vm, refuse, err
}

// TestRestoredIsLarger: the guest uses what its VM has more before there is a pod. One that does
// not is replaced by one that boots, with that as the cause.
func TestRestoredIsLarger(t *testing.T) {
	for _, answers := range []bool{true, false} {
		f, source, commands := restoredFixture(t)
		f.with(func(o *Options) { o.Source = resized{source} })
		if !answers {
			f.agent.answer = refuse(hyperstart.OnlineCPUMem)
		}
		if err := f.boot(bundle.Pod{}); err != nil {
			t.Fatal(err)
		}
		want := []hyperstart.Code{hyperstart.Ping, hyperstart.GetVersion, hyperstart.Reseed, hyperstart.OnlineCPUMem}
		if got := commands(); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("the guest was told %v, want %v first", got, want)
		}
		if n := len(source.refused); answers && n > 0 || !answers && (n != 1 || !errors.Is(source.refused[0], hypervisor.ErrNotResized)) {
			t.Errorf("refused: %v", source.refused)
		}
	}
}

// ready is a source that has a VM before it is asked for one.
type ready struct {
	Source
	released int
}

func (r *ready) Release() error {
	r.released++
	return errors.New("it has it still")
}

// TestBootReleases: a source whose VM is not asked for lets go of it.
func TestBootReleases(t *testing.T) {
	f := newFixture(t)
	source := &ready{Source: f.opts.Source}
	f.with(func(o *Options) { o.Source = source })
	err := f.boot(bundle.Pod{Network: bundle.Network{Path: "/no/such/netns"}})
	if err == nil || !strings.Contains(err.Error(), "it has it still") || source.released != 1 {
		t.Errorf("%d times: %v", source.released, err)
	}
}
