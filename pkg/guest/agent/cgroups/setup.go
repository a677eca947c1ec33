package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// SetUp makes the parent of the containers' groups below the mounted root.
func SetUp(root, base string) error {
	if err := enableControllers(root); err != nil {
		return err
	}
	if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return enableControllers(base)
}

// enableControllers gives every controller of dir to its children.
func enableControllers(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	names := strings.Fields(string(b))
	if len(names) == 0 {
		return nil
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	if kernfs.Write(control, "+"+strings.Join(names, " +")) == nil {
		return nil
	}
	// One that cannot be enabled, such as cpu with realtime tasks around, must
	// not take the others with it.
	for _, name := range names {
		if err := kernfs.Write(control, "+"+name); err != nil {
			console.Logf("enable cgroup controller %s: %v", name, err)
		}
	}
	return nil
}
