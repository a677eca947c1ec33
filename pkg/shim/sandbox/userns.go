package sandbox

import (
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/thread"
)

// A pod with a user namespace has it in the guest, with the mappings that it
// would have on the host: what the host shows as the files of a mapped user are
// those of that user for the guest as well. Volumes are mapped on the host,
// which has their file systems; the guest's virtiofs could not.

// idMap maps the ids of a volume's files. Its lists have "container:host:size"
// for each range; the zero value maps nothing.
type idMap struct {
	uids, gids string
	deep       bool // what is mounted below the volume, too
}

// idMapOf reads the mappings of a mount.
func idMapOf(m specs.Mount) idMap {
	if len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		return idMap{}
	}
	ids := idMap{uids: idList(m.UIDMappings), gids: idList(m.GIDMappings)}
	for _, option := range m.Options {
		ids.deep = ids.deep || option == "ridmap"
	}
	return ids
}

func idList(mappings []specs.LinuxIDMapping) string {
	var ranges []string
	for _, m := range mappings {
		ranges = append(ranges, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	return strings.Join(ranges, ",")
}

// apply maps the ids of a detached mount.
func (i idMap) apply(tree int) error {
	if i == (idMap{}) {
		return nil
	}
	var users *os.File
	err := thread.Do(nil, func() (err error) { // the namespace's first process dies with the thread
		users, err = mount.GetUsernsFD(i.uids, i.gids)
		return err
	})
	if err != nil {
		return fmt.Errorf("map ids %s, %s: %w", i.uids, i.gids, err)
	}
	defer func() { _ = users.Close() }()
	flags := uint(unix.AT_EMPTY_PATH)
	if i.deep {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
	if err != nil {
		return fmt.Errorf("map ids: its file system must support that (a pod with hostUsers: false needs it): %w", err)
	}
	return nil
}

// guestMappings drops the mappings of mounts, which the host has applied.
func guestMappings(spec *specs.Spec) {
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		m.UIDMappings, m.GIDMappings = nil, nil
		var kept []string
		for _, option := range m.Options {
			if option != "idmap" && option != "ridmap" {
				kept = append(kept, option)
			}
		}
		m.Options = kept
	}
}
