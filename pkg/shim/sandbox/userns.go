package sandbox

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// A pod with a user namespace has it in the guest, with the mappings that it
// would have on the host: what the host exposes as the files of a mapped user
// are those of that user for the guest as well. Volumes are mapped on the host,
// see share.IDMap.

// idMapOf reads the mappings of a mount.
func idMapOf(m specs.Mount) share.IDMap {
	if len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		return share.IDMap{}
	}
	ids := share.IDMap{UIDs: idList(m.UIDMappings), GIDs: idList(m.GIDMappings)}
	for _, option := range m.Options {
		ids.Deep = ids.Deep || option == "ridmap"
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
