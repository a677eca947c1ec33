package hostcgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// unifiedControllers are those of a unified hierarchy that account for a sandbox
// or limit it.
var unifiedControllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}

// createUnified makes a group of the unified hierarchy. A group has the controllers
// that its parent gives its children, so they are turned on in each group above
// it, as OCI runtimes do. One that cannot be is left out: it may be in use in a v1
// hierarchy, or the group may have processes of its own.
func createUnified(path string) error {
	dir := root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err := turnOn(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// turnOn gives the children of a group the controllers that it has.
func turnOn(dir string) error {
	has, err := fields(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	gives, err := fields(control)
	if err != nil {
		return err
	}
	for _, controller := range unifiedControllers {
		if slices.Contains(has, controller) && !slices.Contains(gives, controller) {
			// One at a time: a write of several fails as a whole.
			_ = os.WriteFile(control, []byte("+"+controller), 0)
		}
	}
	return nil
}

func fields(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read controllers: %w", err)
	}
	return strings.Fields(string(b)), nil
}
