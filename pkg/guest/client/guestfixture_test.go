package client_test

import (
	"net"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/internal/wiretest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
)

// fixture is a typed client and the scripted guest that it speaks to.
type fixture struct {
	client.Guest
	t      *testing.T
	wire   *wiretest.Guest
	server *proxy.Server
}

// pipeServer has connections that work inside of a synctest bubble.
type pipeServer struct{ *proxy.Server }

func (s pipeServer) Pipe() (net.Conn, error) { return dialer(s.Server)() }

// newFixture connects a client. What o leaves open is filled in.
func newFixture(t *testing.T, dialect hyperstart.Dialect, answer reply, o client.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, server: proxy.NewServer(proxy.Options{Dialect: dialect})}
	o.Server = pipeServer{f.server}
	f.wire, o.Ctl, o.TTY = newGuest(t, answer)
	o.VM = "pod"
	var err error
	if f.Guest, err = client.Dial(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.server.Close()
		_ = f.Close()
		f.wire.Close()
	})
	return f
}

// start starts the pod.
func (f *fixture) start() *fixture {
	f.t.Helper()
	if err := f.StartPod(f.t.Context(), client.Pod{}); err != nil {
		f.t.Fatal(err)
	}
	return f
}

// session opens a session, whose sequence numbers are 3 and 4 when it is the first.
func (f *fixture) session() client.Session {
	f.t.Helper()
	s, err := f.OpenSession(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s
}

// container creates container "c" and returns its session.
func (f *fixture) container() client.Session {
	f.t.Helper()
	s := f.session()
	if err := f.CreateContainer(f.t.Context(), s, client.Container{ID: "c", Spec: newSpec()}); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// sent returns the commands that the guest got from the n-th on, as text.
func (f *fixture) sent(n int) []string {
	f.wire.Mu.Lock()
	defer f.wire.Mu.Unlock()
	var all []string
	for _, c := range f.wire.Commands[n:] {
		all = append(all, strings.TrimSpace(f.Dialect().CodeName(c.Code)+" "+c.Payload))
	}
	return all
}

// newSpec is a specification of a guest.
func newSpec() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "/run/ccv2/shared/c/rootfs"},
		Process: &specs.Process{
			Args: []string{"sh", "-c", "a<b"}, Cwd: "/", Env: []string{"A=b=c", "D"},
			User:        specs.User{AdditionalGids: []uint32{3}},
			ConsoleSize: &specs.Box{Height: 24, Width: 80},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
	}
}
