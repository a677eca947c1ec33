package fake

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a VM with the ports a and b, which ends with the test.
func start(t *testing.T, d *Driver) *VM {
	t.Helper()
	t.Cleanup(d.Close)
	if _, err := d.Start(t.Context(), hypervisor.Spec{Ports: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	return d.Last()
}

// TestGuest speaks on the ports until the VM ends.
func TestGuest(t *testing.T) {
	d := &Driver{Guest: func(_ *VM, ports map[string]net.Conn) { _, _ = io.Copy(ports["a"], ports["a"]) }}
	vm := start(t, d)
	conn, err := vm.Dial(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("echo")); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4)
	if _, err := io.ReadFull(conn, text); err != nil || string(text) != "echo" {
		t.Errorf("%q, %v", text, err)
	}
	for _, port := range []string{"a", "c"} {
		if _, err := vm.Dial(t.Context(), port); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("port %s: %v", port, err)
		}
	}
	vm.Die()
	<-vm.Done()
	if got := vm.Exit().Signal; got != int(unix.SIGKILL) {
		t.Errorf("signal %d", got)
	}
	if _, err := conn.Read(text); !errors.Is(err, io.EOF) {
		t.Errorf("read after the end: %v", err)
	}
	if _, err := vm.Dial(t.Context(), "b"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("dial after the end: %v", err)
	}
}

// TestDevices come and go.
func TestDevices(t *testing.T) {
	vm := start(t, &Driver{})
	dev := hypervisor.FSDevice{ID: "d"}
	for i, want := range []error{nil, errdefs.ErrAlreadyExists} {
		if err := vm.Plug(t.Context(), dev); !errors.Is(err, want) || len(vm.Devices()) != 1 {
			t.Errorf("plug %d: %v, %v", i, err, vm.Devices())
		}
	}
	for i, want := range []error{nil, errdefs.ErrNotFound} {
		if err := vm.Unplug(t.Context(), "d"); !errors.Is(err, want) || len(vm.Devices()) != 0 {
			t.Errorf("unplug %d: %v, %v", i, err, vm.Devices())
		}
	}
	if err := vm.Pause(t.Context()); err != nil || !vm.Paused() {
		t.Errorf("pause: %v", err)
	}
	if err := vm.Resume(t.Context()); err != nil || vm.Paused() {
		t.Errorf("resume: %v", err)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestErrs fails at each step.
func TestErrs(t *testing.T) {
	broken := errors.New("broken")
	if _, err := (&Driver{Errs: map[Step]error{Start: broken}}).Start(t.Context(), hypervisor.Spec{}); !errors.Is(err, broken) {
		t.Errorf("start: %v", err)
	}
	if _, err := (&Driver{Starting: func(context.Context) error { return broken }}).Start(t.Context(), hypervisor.Spec{}); !errors.Is(err, broken) {
		t.Errorf("starting: %v", err)
	}
	vm := start(t, &Driver{Errs: map[Step]error{Dial: broken, Plug: broken, Unplug: broken, Pause: broken, Resume: broken}})
	_, dial := vm.Dial(t.Context(), "a")
	for step, err := range map[Step]error{
		Dial: dial, Plug: vm.Plug(t.Context(), hypervisor.FSDevice{}), Unplug: vm.Unplug(t.Context(), "a"),
		Pause: vm.Pause(t.Context()), Resume: vm.Resume(t.Context()),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", step, err)
		}
	}
}

// TestPluggerOf hides whether a VM can do it.
func TestPluggerOf(t *testing.T) {
	vm := start(t, &Driver{})
	if err := hypervisor.PluggerOf(vm).Plug(t.Context(), hypervisor.FSDevice{ID: "d"}); err != nil {
		t.Error(err)
	}
	without := hypervisor.PluggerOf(struct{ hypervisor.VM }{vm})
	if err := without.Plug(t.Context(), hypervisor.FSDevice{ID: "d"}); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("plug: %v", err)
	}
	if err := without.Unplug(t.Context(), "d"); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("unplug: %v", err)
	}
}
