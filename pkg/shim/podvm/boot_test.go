package podvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// refuse makes the agent refuse a command.
func refuse(refused hyperstart.Code) func(hyperstart.Code) (hyperstart.Code, []byte) {
	return func(code hyperstart.Code) (hyperstart.Code, []byte) {
		if code == refused {
			return hyperstart.Error, []byte(`{"message":"not today"}`)
		}
		return 0, nil
	}
}

// TestBootFails at every step: the error says at which. The fixture looks for
// what is left.
func TestBootFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*fixture)
		want  string
	}{
		{"start of the vmm", func(f *fixture) { f.driver.Errs = map[fake.Step]error{fake.Start: errors.New("no vmm today")} }, "boot sandbox pod: start vm: no vmm today"},
		{"ports", func(f *fixture) { f.driver.Errs = map[fake.Step]error{fake.Dial: errors.New("no port")} }, "guest not ready"},
		{"no READY", func(f *fixture) {
			f.driver.Guest = nil
			f.with(func(o *Options) { o.Config.BootTimeout = 300 * time.Millisecond })
		}, "raise [guest] boot_timeout if the host is only slow); last console lines:\n  a line of the console"},
		{"version", func(f *fixture) {
			f.agent.answer = func(code hyperstart.Code) (hyperstart.Code, []byte) {
				if code == hyperstart.GetVersion {
					return hyperstart.Ack, []byte{0, 0, 0, 1}
				}
				return 0, nil
			}
		}, "guest speaks version 1"},
		{"end of the vm", func(f *fixture) {
			f.agent.noted = func(hyperstart.Code) {
				f.driver.Last().Die()
				<-f.driver.Last().Done()
			}
		}, "vm ended by itself: qemu died of signal killed"},
		{"start of the pod", func(f *fixture) { f.agent.answer = refuse(hyperstart.StartPod) }, "start pod after"},
		{"directory", func(f *fixture) { f.with(func(o *Options) { o.StateDir = "/proc/no/such" }) }, "create sandbox directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tt.setUp(f)
			if err := f.boot(bundle.Pod{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestBootIsAborted in each phase of it.
func TestBootIsAborted(t *testing.T) {
	for _, phase := range []string{"vmm", "guest", "pod"} {
		t.Run(phase, func(t *testing.T) {
			f := newFixture(t)
			reached := make(chan struct{})
			reach := sync.OnceFunc(func() { close(reached) })
			switch phase {
			case "vmm":
				f.driver.Starting = func(ctx context.Context) error {
					reach()
					<-ctx.Done()
					return ctx.Err()
				}
			case "guest":
				f.agent.ignore[hyperstart.GetVersion] = true
			case "pod":
				f.agent.ignore[hyperstart.StartPod] = true
			}
			f.agent.noted = func(code hyperstart.Code) {
				if f.agent.ignore[code] {
					reach()
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			booted := make(chan error, 1)
			go func() { booted <- f.Boot(ctx, bundle.Pod{}, client.Events{}) }()
			<-reached
			cancel()
			if err := <-booted; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestLeftoversOfADeadShim are cleaned up; those of a living one are not touched.
func TestLeftoversOfADeadShim(t *testing.T) {
	f := newFixture(t)
	dead := hostproc.Process{Name: "shim", PID: os.Getpid(), Start: 1} // the pid has a new owner
	if err := f.record().Create(store.State{Namespace: "test", ID: "pod", Shim: dead}); err != nil {
		t.Fatal(err)
	}
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	second := New(f.opts)
	if err := second.Boot(t.Context(), bundle.Pod{}, client.Events{}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second machine: %v", err)
	}
	if err := second.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := f.record().Load(); err != nil {
		t.Errorf("the first machine's record: %v", err)
	}
}

// TestLoss of the VM: what it was is known, and commands say so.
func TestLoss(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Guest().Sync(t.Context()); err != nil {
		t.Error(err)
	}
	f.driver.Last().Die()
	<-f.Lost()
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "vm ended by itself: qemu died of signal killed") {
		t.Errorf("%v, want how it ended: the end of its connections came first", err)
	}
	if err := f.Guest().Sync(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a command: %v", err)
	}
}

// TestPause refuses commands while the vCPUs are stopped.
func TestPause(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Pause(t.Context()); err != nil || !f.Paused() {
		t.Fatalf("pause: %v, paused %v", err, f.Paused())
	}
	if err := f.Guest().Sync(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("a command: %v", err)
	}
	if err := f.Resume(t.Context()); err != nil || f.Paused() {
		t.Fatalf("resume: %v, paused %v", err, f.Paused())
	}
	if err := f.Guest().Sync(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNetwork: the guest has it before STARTPOD, gets what changes, and the
// links are released.
func TestNetwork(t *testing.T) {
	ns := networktest.New(t)
	ns.Add("eth0", "192.0.2.2/24")
	f := newFixture(t)
	got := make(chan hyperstart.Code, 16)
	f.agent.noted = func(code hyperstart.Code) {
		if code == hyperstart.SetupInterface || code == hyperstart.SetupRoute || code == hyperstart.StartPod {
			got <- code
		}
	}
	expect := func(want ...hyperstart.Code) {
		t.Helper()
		for _, code := range want {
			select {
			case code2 := <-got:
				if code2 != code {
					t.Errorf("the guest got %s, want %s", code2, code)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("the guest did not get %s", code)
			}
		}
	}
	if err := f.boot(bundle.Pod{Network: bundle.Network{Path: ns.Path}}); err != nil {
		t.Fatal(err)
	}
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute, hyperstart.StartPod)
	state, err := f.record().Load()
	if err != nil || state.NetNS != ns.Path || state.NetNSCookie == 0 {
		t.Errorf("recorded is %q, %d, %v", state.NetNS, state.NetNSCookie, err)
	}
	eth0, err := ns.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	ns.AddAddress(eth0, "192.0.2.3/24")
	expect(hyperstart.SetupInterface, hyperstart.SetupRoute)
	f.Kill(t.Context(), errors.New("the test ends it"))
	if err := f.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	qdiscs, err := ns.QdiscList(eth0)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qdiscs {
		if q.Type() == "ingress" {
			t.Error("eth0 is still mirrored")
		}
	}
}

// TestHostNetworkAcquiresNothing refuses before a VM is started.
func TestHostNetworkAcquiresNothing(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{Network: bundle.Network{Host: true}}); !errors.Is(err, network.ErrHost) {
		t.Errorf("got %v, want a refusal", err)
	}
	if f.driver.Last() != nil {
		t.Error("a VM was started")
	}
}

// TestNotTheHostsNetwork: a container of no pod that asks for it learns from the log
// that it does not get it.
func TestNotTheHostsNetwork(t *testing.T) {
	var text bytes.Buffer
	before := log.L.Logger.Out
	log.L.Logger.SetOutput(&text)
	f := newFixture(t)
	err := f.boot(bundle.Pod{Network: bundle.Network{NotHost: true}})
	log.L.Logger.SetOutput(before) // waits for whoever writes
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=warning", "container=" + f.opts.ID, "the host's network"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q lacks %q", text.String(), want)
		}
	}
}

// TestVictim: when memory is short the kernel ends the VMM, not the shim.
func TestVictim(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	score := func(pid string) (n int) {
		b, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	own, vmm := score("self"), score(fmt.Sprint(f.PID()))
	if want := min(own+oomScore, oomScoreMax); vmm != want {
		t.Errorf("score %d of the VMM, want %d; the shim has %d", vmm, want, own)
	}
}

// TestPlaceholder is in the pod's network namespace.
func TestPlaceholder(t *testing.T) {
	f := newFixture(t)
	if err := f.boot(bundle.Pod{}); err != nil {
		t.Fatal(err)
	}
	p, err := f.Placeholder(placeholder.Container{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pid, err := p.Start("", placeholder.Identity{Name: "init"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.network.File().Stat()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || !os.SameFile(got, want) {
		t.Errorf("it is in another network namespace, or gone: %v", err)
	}
}
