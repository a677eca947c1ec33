package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const configFile = "config.json"

// Bundle is a bundle that was read.
type Bundle struct {
	Dir string // absolute, or relative to the working directory, as given
	// Spec is config.json; Spec.Linux is never nil. Nobody may change it.
	Spec *specs.Spec
}

// Load reads the bundle at dir. A missing config.json is errdefs.ErrNotFound,
// one that is not an OCI specification errdefs.ErrInvalidArgument.
func Load(dir string) (*Bundle, error) {
	path := filepath.Join(dir, configFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read bundle: %w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("read bundle: %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	return &Bundle{Dir: dir, Spec: &spec}, nil
}

// CheckRunnable returns errdefs.ErrInvalidArgument for a bundle without a
// process to run.
func (b *Bundle) CheckRunnable() error {
	if b.Spec.Process == nil || len(b.Spec.Process.Args) == 0 {
		return fmt.Errorf("read bundle: %s has no process.args: %w", filepath.Join(b.Dir, configFile), errdefs.ErrInvalidArgument)
	}
	return nil
}

// RootfsDir is the directory that the specification names as the root file
// system: "rootfs" in the bundle where it names none.
func (b *Bundle) RootfsDir() string {
	path := "rootfs"
	if b.Spec.Root != nil && b.Spec.Root.Path != "" {
		path = b.Spec.Root.Path
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.Dir, path)
	}
	return path
}

// HostIDs are the ids on the host of a user of a container; 65534, nobody's, where
// its user namespace has none.
func HostIDs(spec *specs.Spec, user specs.User) (uid, gid uint32) {
	return hostID(user.UID, spec.Linux.UIDMappings), hostID(user.GID, spec.Linux.GIDMappings)
}

func hostID(id uint32, mappings []specs.LinuxIDMapping) uint32 {
	if len(mappings) == 0 {
		return id
	}
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID
		}
	}
	return 65534
}
