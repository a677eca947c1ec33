package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/task"
)

// registerPlugins tells the shim framework about the services.
func registerPlugins() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newService,
	})
}

// newService makes the task service of the sandbox that this process is for.
func newService(ic *plugin.InitContext) (any, error) {
	publisher, err := get[shim.Publisher](ic, plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := get[shutdown.Service](ic, plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	namespace, err := namespaces.NamespaceRequired(ic.Context)
	if err != nil {
		return nil, err
	}
	socket, err := ownSocket()
	if err != nil {
		return nil, err
	}
	sd.RegisterCallback(func(context.Context) error {
		_ = os.Remove(socket) // the framework may have done it
		return nil
	})
	return task.New(ic.Context, publisher, sd, func(sink sandbox.Sink) *sandbox.Sandbox {
		return newSandbox(ic.Context, namespace, sandboxID(), sink)
	}), nil
}

// socketFD is where the start command leaves the socket. The framework closes it
// when it begins to serve.
const socketFD = 3

// ownSocket names the socket that this process will serve. The framework looks
// for the name in the bundle when it ends, which a process that outlives its
// sandbox's own container has no more.
func ownSocket() (string, error) {
	address, err := unix.Getsockname(socketFD)
	if err != nil {
		return "", fmt.Errorf("find own socket: %w", err)
	}
	if address, ok := address.(*unix.SockaddrUnix); ok {
		return address.Name, nil
	}
	return "", fmt.Errorf("find own socket: got %T", address)
}

// sandboxID is the id that the start command gave this process.
func sandboxID() string { return flag.Lookup("id").Value.String() }

func get[T any](ic *plugin.InitContext, kind plugin.Type, id string) (T, error) {
	var zero T
	p, err := ic.GetByID(kind, id)
	if err != nil {
		return zero, err
	}
	t, ok := p.(T)
	if !ok {
		return zero, fmt.Errorf("plugin %s.%s is a %T", kind, id, p)
	}
	return t, nil
}

// newSandbox reads the configuration. A problem with it is told by Create: a
// shim that does not serve has no other way to say it.
func newSandbox(ctx context.Context, namespace, id string, sink sandbox.Sink) *sandbox.Sandbox {
	opts, err := sandboxOptions(ctx)
	opts.Namespace, opts.ID, opts.Sink, opts.Failed = namespace, id, sink, err
	return sandbox.NewSandbox(opts)
}
