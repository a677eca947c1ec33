package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/reclaim"
)

// Manager implements [shim.Shim].
type Manager struct {
	name string
}

var _ shim.Shim = (*Manager)(nil)

// New returns the manager of a runtime, such as "io.containerd.cc.v2".
func New(name string) *Manager { return &Manager{name: name} }

// Name is the name of the runtime.
func (m *Manager) Name() string { return m.name }

// Start answers with the address of the shim that serves the container: the
// one of its sandbox when that runs already, or of the container whose namespaces
// it joins, a new one otherwise.
func (m *Manager) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	unlock, err := lockNew(ctx, ".")
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer unlock()
	group, err := sandboxOf(".", params.GetInstanceID())
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	other, err := joined(".")
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	if other != nil {
		if err := bundle.SaveAddress(".", bundle.Address{Address: other.address}); err != nil {
			return nil, fmt.Errorf("start shim: %w", err)
		}
		return resultOf(other.address), nil
	}
	return m.serve(ctx, params, group)
}

// resultOf is the answer of Start.
func resultOf(address string) *bootapi.BootstrapResult {
	return &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: address}
}

// serve starts the shim of a sandbox, unless it runs.
func (m *Manager) serve(ctx context.Context, params *bootapi.BootstrapParams, group string) (*bootapi.BootstrapResult, error) {
	debug := params.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG
	address, err := addressOf(ctx, params, group)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	result := resultOf(address)
	// A shim that is killed cannot remove its socket; delete finds it here.
	if err := bundle.SaveAddress(".", bundle.Address{Address: address}); err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	socket, err := listen(address)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return result, nil
	}
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer func() { _ = socket.Close() }() // the server has its own descriptor
	options, err := settingsOf(params)
	if err == nil {
		err = m.spawn(ctx, params, spawnArgs{group: group, debug: debug, socket: socket, address: address, env: options.env()})
	}
	if err != nil {
		_ = shim.RemoveSocket(address)
		return nil, fmt.Errorf("start shim: %w", err)
	}
	return result, nil
}

// addressOf returns where the shim of a sandbox listens, or is to. One that runs
// may have been started by another containerd, with sockets in another directory.
func addressOf(ctx context.Context, params *bootapi.BootstrapParams, group string) (string, error) {
	if group != params.GetInstanceID() {
		own, err := bundle.LoadAddress(filepath.Join("..", group))
		if err == nil && shim.CanConnect(own.Address) {
			return own.Address, nil
		}
	}
	dir := params.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	return shim.CreateSocketAddress(ctx, dir, params.GetContainerdGrpcAddress(), group, false)
}

// lockNew locks a bundle for which a shim is to be started. A containerd that
// has followed the one that asked for it may have deleted the bundle by now.
func lockNew(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, reclaim.Timeout)
	defer cancel()
	unlock, err = bundle.Lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	if bundle.Deleted(dir) {
		unlock()
		return nil, fmt.Errorf("the bundle was deleted meanwhile: %w", errdefs.ErrFailedPrecondition)
	}
	return unlock, nil
}

// listen makes the socket. A shim that already serves it is
// errdefs.ErrAlreadyExists; the socket of a dead one is replaced.
func listen(address string) (*os.File, error) {
	l, err := shim.NewSocket(address)
	if err != nil && shim.SocketEaddrinuse(err) {
		if shim.CanConnect(address) {
			return nil, errdefs.ErrAlreadyExists
		}
		if err := shim.RemoveSocket(address); err != nil {
			return nil, fmt.Errorf("remove dead socket: %w", err)
		}
		l, err = shim.NewSocket(address)
	}
	if err != nil {
		return nil, fmt.Errorf("create socket: %w", err)
	}
	return fileOf(l)
}

// fileOf keeps the socket's file when the listener is closed.
func fileOf(l *net.UnixListener) (*os.File, error) {
	l.SetUnlinkOnClose(false)
	defer func() { _ = l.Close() }()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("create socket: %w", err)
	}
	return f, nil
}

type spawnArgs struct {
	group   string // id of the sandbox
	debug   bool
	socket  *os.File
	address string // of the socket
	env     []string
}

// spawn starts the server process, which outlives this one, and records it in the
// bundle: when containerd dies before it has the address, delete ends it.
func (m *Manager) spawn(ctx context.Context, params *bootapi.BootstrapParams, a spawnArgs) error {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"-namespace", ns, "-id", a.group, "-address", params.GetContainerdGrpcAddress()}
	if a.debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...) //nolint:noctx // ourselves; it must outlive ctx
	cmd.ExtraFiles = []*os.File{a.socket}
	cmd.Env = a.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	server, err := hostproc.Of("shim", cmd.Process.Pid)
	if err == nil {
		err = bundle.SaveAddress(".", bundle.Address{Address: a.address, Shim: &server})
	}
	if err != nil {
		_ = cmd.Process.Kill() // no delete command would find it
		return err
	}
	// Some containers do not allow it. It cannot be told: containerd reads what is
	// logged here as a part of the answer.
	_ = shim.AdjustOOMScore(cmd.Process.Pid)
	return cmd.Process.Release()
}

// sandboxOf reads from a bundle which sandbox a container belongs to.
func sandboxOf(dir, id string) (string, error) {
	b, err := bundle.Load(dir)
	if err != nil {
		return "", err
	}
	return b.SandboxID(id)
}

// Info describes the runtime.
func (m *Manager) Info(_ context.Context, _ io.Reader) (*types.RuntimeInfo, error) {
	offered, err := typeurl.MarshalAnyToProto(runtimeFeatures())
	if err != nil {
		return nil, fmt.Errorf("encode features: %w", err)
	}
	return &types.RuntimeInfo{
		Name:     m.name,
		Version:  &types.RuntimeVersion{Version: version.Version, Revision: version.Revision},
		Features: offered,
	}, nil
}
