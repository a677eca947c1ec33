package podnet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network/networktest"
)

func TestOpen(t *testing.T) {
	for _, host := range []bundle.Network{{Host: true}, {Path: "/proc/self/ns/net"}} {
		if _, err := Open(host, time.Second); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "hostNetwork: false") {
			t.Errorf("%+v: got %v, want a refusal that says what to do", host, err)
		}
	}
	if _, err := Open(bundle.Network{Path: filepath.Join(t.TempDir(), "gone")}, time.Second); !errdefs.IsNotFound(err) {
		t.Errorf("got %v for a namespace that does not exist", err)
	}
}

// TestNetworkIsOne holds nothing but the namespace that it was told to open,
// and nothing at all in the end.
func TestNetworkIsOne(t *testing.T) {
	ns := networktest.New(t)
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	n, err := Open(bundle.Network{Path: ns.Path}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

// slow is a guest that answers when it is let, and not at all before.
type slow struct {
	asked chan struct{}
	let   chan struct{}
}

func (s slow) SetInterface(ctx context.Context, _ hyperstart.Interface) error {
	s.asked <- struct{}{}
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slow) SetRoutes(context.Context, hyperstart.Routes) error { return nil }

// TestGuestThatDoesNotAnswer holds up neither a caller that gives up nor Close.
func TestGuestThatDoesNotAnswer(t *testing.T) {
	ns := networktest.New(t)
	n, err := Open(bundle.Network{Path: ns.Path}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	guest := slow{asked: make(chan struct{}, 8), let: make(chan struct{})}
	if err := n.Attach(t.Context(), &plugs{}, guest); err != nil {
		t.Fatal(err)
	}
	n.Follow(t.Context(), func(context.Context) {})
	ns.Add("eth0", "192.0.2.2/24")
	<-guest.asked
	ctx, cancel := context.WithCancel(t.Context())
	refreshed := make(chan error, 1)
	go func() { refreshed <- n.Refresh(ctx) }()
	cancel()
	if err := <-refreshed; !errors.Is(err, context.Canceled) {
		t.Errorf("refresh: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Refresh(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("refresh after the end: %v", err)
	}
}

// TestFollow applies changes, and Refresh returns after them.
func TestFollow(t *testing.T) {
	ns := networktest.New(t)
	n, err := Open(bundle.Network{Path: ns.Path}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Refresh(t.Context()); err != nil {
		t.Errorf("before Follow: %v", err)
	}
	vm := &plugs{}
	if err := n.Attach(t.Context(), vm, vm); err != nil {
		t.Fatal(err)
	}
	n.Follow(t.Context(), func(context.Context) {})
	ns.Add("eth0", "192.0.2.2/24")
	if err := n.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil { // and nobody else uses vm any more
		t.Error(err)
	}
	if !slices.Contains(vm.list, "interface eth0 1") {
		t.Errorf("the guest got %q", vm.list)
	}
}
