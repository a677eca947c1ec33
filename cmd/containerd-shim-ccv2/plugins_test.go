package main

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// TestRegister: the framework accepts the plugins and starts them in their order.
func TestRegister(t *testing.T) {
	registerPlugins()
	var order []plugin.Type
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		order = append(order, r.Type)
	}
	events, sandbox, task := slices.Index(order, eventsPlugin), slices.Index(order, sandboxPlugin), slices.Index(order, plugins.TTRPCPlugin)
	if events < 0 || events > sandbox || sandbox > task {
		t.Errorf("order %q", order)
	}
}
