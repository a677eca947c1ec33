package sandbox

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestBootFails at every step: the error says at which, everything is given
// back, and whoever comes later gets the same answer. The fixture looks for
// what is left.
func TestBootFails(t *testing.T) {
	refuse := func(refused hyperstart.Code) func(hyperstart.Code) (hyperstart.Code, []byte) {
		return func(code hyperstart.Code) (hyperstart.Code, []byte) {
			if code == refused {
				return hyperstart.Error, []byte(`{"message":"not today"}`)
			}
			return 0, nil
		}
	}
	for _, tt := range []struct {
		name  string
		setUp func(*fixture)
		want  string
	}{
		{"start of the vmm", func(f *fixture) { f.driver.fail = "start" }, "boot sandbox pod: no vmm today"},
		{"ports", func(f *fixture) { f.driver.fail = "connect" }, "guest not ready"},
		{"no READY", func(f *fixture) {
			f.driver.fail = "ready"
			f.vm.Config.BootTimeout = 300 * time.Millisecond
		}, "raise [guest] boot_timeout if the host is only slow); last console lines:\n  a line of the console"},
		{"version", func(f *fixture) {
			f.agent.hook = func(code hyperstart.Code) (hyperstart.Code, []byte) {
				if code == hyperstart.GetVersion {
					return hyperstart.Ack, []byte{0, 0, 0, 1}
				}
				return 0, nil
			}
		}, "guest speaks version 1"},
		{"end of the vm", func(f *fixture) {
			f.agent.hook = func(hyperstart.Code) (hyperstart.Code, []byte) {
				f.driver.machine().die()
				<-f.driver.machine().done
				return 0, nil
			}
		}, "vm ended by itself: qemu died of signal killed"},
		{"start of the pod", func(f *fixture) { f.agent.hook = refuse(hyperstart.StartPod) }, "start pod after"},
		{"directory", func(f *fixture) { f.vm.StateDir = "/proc/no/such" }, "create sandbox directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, hyperstart.DialectCCv2)
			tt.setUp(f)
			f.Sandbox = f.sandbox()
			_, err := f.tryCreate(podID, "wait")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if f.State() != StateStopped || f.Containers() != 0 {
				t.Errorf("sandbox is %s with %d containers", f.State(), f.Containers())
			}
			if _, again := f.tryCreate("other", "wait"); again == nil || !strings.Contains(again.Error(), tt.want) {
				t.Errorf("second create: %v", again)
			}
			if events := f.events.list(); len(events) != 0 {
				t.Errorf("events %q", events)
			}
		})
	}
}

// TestConfigurationThatCannotBeUsed reaches the caller of Create, and only that.
func TestConfigurationThatCannotBeUsed(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	broken := errors.New("no kernel")
	f.opts.ConfigErr = broken
	if _, err := f.tryCreate("c", "wait"); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if f.State() != StateNew {
		t.Errorf("sandbox is %s", f.State())
	}
}

func TestStopBeforeBoot(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	for range 2 {
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.tryCreate("c", "wait"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
}

// TestStopDuringBoot in each phase of it.
func TestStopDuringBoot(t *testing.T) {
	for _, phase := range []string{"vmm", "guest", "pod"} {
		t.Run(phase, func(t *testing.T) {
			f := newFixture(t, hyperstart.DialectCCv2)
			reached := make(chan struct{})
			var once sync.Once
			reach := func() { once.Do(func() { close(reached) }) }
			switch phase {
			case "vmm":
				f.driver.started = func() <-chan struct{} { reach(); return nil }
			case "guest":
				f.agent.ignore[hyperstart.GetVersion] = true
			case "pod":
				f.agent.ignore[hyperstart.StartPod] = true
			}
			if phase != "vmm" {
				f.agent.noted = func(code hyperstart.Code) {
					if f.agent.ignore[code] {
						reach()
					}
				}
			}
			created := make(chan error, 1)
			bundle := f.bundle(podID, "wait")
			go func() {
				_, err := f.Create(t.Context(), CreateRequest{ID: podID, Bundle: bundle})
				created <- err
			}()
			<-reached
			if got := f.State(); got != StateBooting {
				t.Errorf("sandbox is %s", got)
			}
			if err := f.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-created; err == nil {
				t.Error("a container of a stopped sandbox was created")
			}
			if f.State() != StateStopped {
				t.Errorf("sandbox is %s", f.State())
			}
		})
	}
}

// TestStopWhileBootFails: both clean up, and only one does.
func TestStopWhileBootFails(t *testing.T) {
	for range 50 {
		f := newFixture(t, hyperstart.DialectCCv2)
		f.driver.fail = "start"
		bundle := f.bundle("c", "wait")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Create(t.Context(), CreateRequest{ID: "c", Bundle: bundle}); err == nil {
				t.Error("created without a vm")
			}
		})
		for range 3 {
			wg.Go(func() {
				if err := f.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// TestCallerThatGivesUp does not end the boot.
func TestCallerThatGivesUp(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	begun, release := make(chan struct{}), make(chan struct{})
	f.driver.started = func() <-chan struct{} { close(begun); return release }
	ctx, cancel := context.WithCancel(t.Context())
	created := make(chan error, 1)
	bundle := f.bundle(podID, "wait")
	go func() {
		_, err := f.Create(ctx, CreateRequest{ID: podID, Bundle: bundle})
		created <- err
	}()
	<-begun
	cancel()
	if err := <-created; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
	f.run(podID, "wait")
}

// TestLeftoversOfADeadShim are cleaned up; those of a living one are not touched.
func TestLeftoversOfADeadShim(t *testing.T) {
	f := newFixture(t, hyperstart.DialectCCv2)
	dir := f.record()
	dead := hostproc.Process{Name: "shim", PID: os.Getpid(), Start: 1} // the pid has a new owner
	if err := dir.Create(store.State{Namespace: "test", ID: podID, Shim: dead}); err != nil {
		t.Fatal(err)
	}
	f.run(podID, "wait")
	second := f.sandbox()
	_, err := second.Create(t.Context(), CreateRequest{ID: podID, Bundle: f.bundle("again", "wait")})
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second sandbox: %v", err)
	}
	if f.State() != StateReady {
		t.Errorf("the first sandbox is %s", f.State())
	}
	if events := f.events.list(); slices.Contains(events, "deleted pod") {
		t.Errorf("events %q", events)
	}
}
