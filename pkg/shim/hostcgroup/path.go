package hostcgroup

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
)

// parse reads a cgroupsPath of the OCI specification: "/a/b" is a path below each
// hierarchy; of "parent.slice:prefix:name" systemd makes the scope prefix-name.scope
// in the slice, where systemd runs, and a path like that of the scope otherwise. It
// returns the path below each hierarchy, too.
func parse(cgroupsPath string) (*cgroups.Cgroup, string, error) {
	parts := strings.Split(cgroupsPath, ":")
	switch {
	case len(parts) == 1:
		path := filepath.Join("/", cgroupsPath)
		if path == "/" {
			return nil, "", fmt.Errorf("cgroup path %q: names no group: %w", cgroupsPath, errdefs.ErrInvalidArgument)
		}
		return &cgroups.Cgroup{Path: path}, path, nil
	case len(parts) == 3 && parts[2] != "" && !strings.Contains(cgroupsPath, "/"):
		return parseUnit(cgroupsPath, parts[0], parts[1], parts[2])
	}
	return nil, "", fmt.Errorf("cgroup path %q: is neither a path nor slice:prefix:name: %w", cgroupsPath, errdefs.ErrInvalidArgument)
}

func parseUnit(cgroupsPath, slice, prefix, name string) (*cgroups.Cgroup, string, error) {
	if slice == "" {
		slice = "system.slice" // as OCI runtimes read it
	}
	parent, err := systemd.ExpandSlice(slice)
	if err != nil {
		return nil, "", fmt.Errorf("cgroup path %q: %w: %w", cgroupsPath, err, errdefs.ErrInvalidArgument)
	}
	if strings.HasSuffix(name, ".slice") { // which holds others, and is somebody's
		return nil, "", fmt.Errorf("cgroup path %q: a slice has no processes: %w", cgroupsPath, errdefs.ErrInvalidArgument)
	}
	path := filepath.Join(parent, prefix+"-"+name+".scope")
	if !systemd.IsRunningSystemd() {
		return &cgroups.Cgroup{Path: path}, path, nil
	}
	return &cgroups.Cgroup{Systemd: true, Parent: slice, ScopePrefix: prefix, Name: name}, path, nil
}
