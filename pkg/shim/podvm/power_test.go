package podvm

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// slowPause is a VM that has carried out a Pause before it answers.
type slowPause struct {
	*fake.VM
	asked, answer chan struct{}
}

func (v slowPause) Pause(ctx context.Context) error {
	err := v.VM.Pause(ctx)
	close(v.asked)
	select {
	case <-v.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sourceOf is a source of VMs that are changed for a test.
type sourceOf struct {
	Source
	change func(*fake.VM) hypervisor.VM
}

func (s sourceOf) Acquire(ctx context.Context, spec hypervisor.Spec, limit int) (hypervisor.VM, func(error), error) {
	vm, refuse, err := s.Source.Acquire(ctx, spec, limit)
	if err != nil {
		return nil, nil, err
	}
	return s.change(vm.(*fake.VM)), refuse, nil
}

// TestCallerOfPauseGoes: whether the vCPUs are stopped is known nevertheless.
func TestCallerOfPauseGoes(t *testing.T) {
	f := newFixture(t)
	slow := slowPause{asked: make(chan struct{}), answer: make(chan struct{})}
	f.with(func(o *Options) {
		o.Source = sourceOf{o.Source, func(vm *fake.VM) hypervisor.VM {
			slow.VM = vm
			return slow
		}}
	})
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	paused := make(chan error, 1)
	go func() { paused <- f.Pause(ctx) }()
	<-slow.asked
	cancel()
	close(slow.answer)
	err := <-paused
	if f.Paused() != slow.Paused() || f.Paused() != (err == nil) {
		t.Errorf("pause: %v, paused %v, and the VM: %v", err, f.Paused(), slow.Paused())
	}
}

// TestKillHasACause: a VM that the shim ends has not ended by itself, and the
// first cause counts.
func TestKillHasACause(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("it does not obey")
	f.Kill(t.Context(), cause)
	<-f.Lost()
	f.Kill(t.Context(), errors.New("too late"))
	if err := f.Err(); !errors.Is(err, cause) {
		t.Errorf("lost for %v, want %v", err, cause)
	}
	if err := f.gate(); !errors.Is(err, cause) {
		t.Errorf("a command is refused for %v, want %v", err, cause)
	}
}

// TestClock: the guest has the host's time after the boot, and after each time that
// the vCPUs stood still. It is as exact as an answer is fast, and none takes longer
// than all of them.
func TestClock(t *testing.T) {
	f := newFixture(t)
	const wrong = time.Hour
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"boot", func() error { return f.boot(bundle.Pod{}) }},
		{"resume", func() error { return errors.Join(f.Pause(t.Context()), f.Resume(t.Context())) }},
		{"another resume", func() error { return errors.Join(f.Pause(t.Context()), f.Resume(t.Context())) }},
	} {
		f.agent.behind.Store(int64(wrong))
		begin := time.Now()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(f.agent.behind.Load()); got.Abs() > time.Since(begin) {
			t.Errorf("after the %s the guest is behind by %v", step.name, got)
		}
	}
}

// TestGuestThatHasNoClock boots, and runs on, as one with an earlier agent does.
func TestGuestThatHasNoClock(t *testing.T) {
	f := newFixture(t)
	f.agent.answer = func(code hyperstart.Code) (hyperstart.Code, []byte) {
		if code == hyperstart.AdjustClock {
			return hyperstart.Error, hyperstart.EncodeError(hyperstart.Errorf(hyperstart.ClassNotImplemented, "no such command"))
		}
		return 0, nil
	}
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Pause(t.Context()), f.Resume(t.Context())); err != nil {
		t.Error(err)
	}
}
