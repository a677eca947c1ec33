package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/calls"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/events"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/task"
)

// Types of our plugins; each has one, of the id pluginID. A plugin cannot require
// its own type, so these are not containerd's. Services are siblings that get the
// sandbox.
const (
	eventsPlugin  plugin.Type = "io.ccv2.events.v1"
	sandboxPlugin plugin.Type = "io.ccv2.sandbox.v1"
	debugPlugin   plugin.Type = "io.ccv2.debug.v1"

	pluginID = "ccv2"
)

// registerPlugins registers what the shim framework starts: where events go, the
// sandbox, and the services over it.
func registerPlugins() {
	registry.Register(&plugin.Registration{
		Type: eventsPlugin, ID: pluginID,
		Requires: []plugin.Type{plugins.EventPlugin}, InitFn: newEvents,
	})
	registry.Register(&plugin.Registration{
		Type: sandboxPlugin, ID: pluginID,
		Requires: []plugin.Type{eventsPlugin, plugins.InternalPlugin}, InitFn: newSandbox,
	})
	registry.Register(&plugin.Registration{
		Type: debugPlugin, ID: pluginID,
		Requires: []plugin.Type{eventsPlugin, sandboxPlugin}, InitFn: newDebug,
	})
	registry.Register(&plugin.Registration{
		Type: plugins.TTRPCPlugin, ID: "task",
		Requires: []plugin.Type{sandboxPlugin, debugPlugin, plugins.InternalPlugin}, InitFn: newTask,
	})
}

// sink is where events go: to containerd, and to those who look at the sandbox.
type sink struct {
	*events.Queue

	history *debug.History
}

// Publish implements [sandbox.Sink].
func (s sink) Publish(e sandbox.Event) {
	s.history.Publish(e)
	s.Queue.Publish(e)
}

// pod is the sandbox and its VM.
type pod struct {
	*sandbox.Sandbox

	vm    *podvm.Machine
	tap   *wiretap.Tap
	calls *calls.Counts
	spans *spans.Recorder
	beat  debug.Heartbeat
	debug *debug.Service // set before the first request
}

// newEvents makes where events go. The sandbox closes it.
func newEvents(ic *plugin.InitContext) (any, error) {
	publisher, err := get[shim.Publisher](ic, plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	return sink{Queue: events.New(ic.Context, publisher), history: debug.NewHistory()}, nil
}

// newSandbox makes the sandbox that this process is for. The end of the process
// stops it and forwards its last events.
func newSandbox(ic *plugin.InitContext) (any, error) {
	to, err := get[sink](ic, eventsPlugin, pluginID)
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
	p := &pod{tap: new(wiretap.Tap), calls: new(calls.Counts), spans: new(spans.Recorder)}
	vm, options, beat := sandboxOptions(ic.Context, namespace, ownID(), to, p.tap, func(dir string) (func() error, error) { return p.debug.Listen(ic.Context, dir) })
	p.Sandbox, p.vm, p.beat = sandbox.New(options), vm, beat
	sd.RegisterCallback(func(ctx context.Context) error {
		err := p.Stop(ctx)
		_ = os.Remove(socket) // the framework may have done it
		return errors.Join(err, to.Close(ctx))
	})
	return p, nil
}

// newDebug makes the debug service, which listens when the sandbox has a directory.
func newDebug(ic *plugin.InitContext) (any, error) {
	to, err := get[sink](ic, eventsPlugin, pluginID)
	if err != nil {
		return nil, err
	}
	p, err := get[*pod](ic, sandboxPlugin, pluginID)
	if err != nil {
		return nil, err
	}
	namespace, err := namespaces.NamespaceRequired(ic.Context)
	if err != nil {
		return nil, err
	}
	p.debug = debug.New(debug.Options{
		Namespace: namespace, Version: version.Version, Sandbox: p.Sandbox, Machine: p.vm, Disks: podvm.DisksOf(p.vm), History: to.history,
		Heartbeat: p.beat, Tap: p.tap, Calls: p.calls, Spans: p.spans,
	})
	return p.debug, nil
}

// newTask makes the task service.
func newTask(ic *plugin.InitContext) (any, error) {
	p, err := get[*pod](ic, sandboxPlugin, pluginID)
	if err != nil {
		return nil, err
	}
	sd, err := get[shutdown.Service](ic, plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	return task.New(p.Sandbox, sd, p.calls, p.spans), nil
}

// socketFD is where the start command leaves the socket. The framework closes it
// when it begins to serve.
const socketFD = 3

// ownSocket names the socket that this process will serve. The framework looks
// for the name in the bundle when it ends, which a process that outlives its
// sandbox container has no more.
func ownSocket() (string, error) {
	// What is started before that must not have it: clients would wait for an answer of
	// a process that has ended.
	unix.CloseOnExec(socketFD)
	address, err := unix.Getsockname(socketFD)
	if err != nil {
		return "", fmt.Errorf("find own socket: %w", err)
	}
	if address, ok := address.(*unix.SockaddrUnix); ok {
		return address.Name, nil
	}
	return "", fmt.Errorf("find own socket: got %T", address)
}

// ownID is the id of the sandbox, which the start command gave this process.
func ownID() string { return flag.Lookup("id").Value.String() }

// get returns a plugin of a type.
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
