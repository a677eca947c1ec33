package guestspec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// Source is where the guest finds the source of a mount.
type Source struct {
	Path string // in the guest
	// ReadOnly is set when the guest has to keep the container from writing:
	// another container may write there.
	ReadOnly bool
	// Kernel, instead of Path, is what the mount shows of the guest's kernel.
	Kernel bundle.Kernel
}

// mounts replaces the sources of the host's mounts by the guest's.
func mounts(all []specs.Mount, limited bool, o Options) []specs.Mount {
	guest := make([]specs.Mount, 0, len(all))
	for i, m := range all {
		source, exposed := o.Sources[i]
		switch {
		case exposed && source.Kernel != (bundle.Kernel{}):
			m = kernelMount(m, source.Kernel)
		case exposed:
			m = bindMount(m, source)
		case bundle.IsBind(m) && filepath.Clean(m.Destination) == "/dev/shm":
			// The pod's, which is not exposed. All its containers share the guest's as
			// well, at memory's speed.
			m.Source = o.Shm
		case limited && !bundle.IsBind(m):
			m = unsized(m)
		}
		guest = append(guest, unmapped(m))
	}
	return guest
}

// hasLimit reports whether a container has a limit of memory.
func hasLimit(r *specs.LinuxResources) bool {
	return r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0
}

// unsized gives a tmpfs without a size all of the guest's memory, where the container has
// a limit. The kernel's default is half of the memory and as many files as there are pages:
// on a host more than the limit, which ends who writes too much; in the guest, which is
// hardly larger than the limit, less.
func unsized(m specs.Mount) specs.Mount {
	has := func(prefixes ...string) bool {
		return slices.ContainsFunc(m.Options, func(o string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(o, p) })
		})
	}
	if m.Type != "tmpfs" {
		return m
	}
	options := slices.Clone(m.Options)
	if !has("size=", "nr_blocks=") {
		options = append(options, "size=100%")
	}
	if !has("nr_inodes=") {
		options = append(options, "nr_inodes=0")
	}
	m.Options = options
	return m
}

// kernelMount is a mount of something that the guest's kernel has of its own.
// Nothing stands before it on the host, so the guest makes it as read-only as it
// is to be.
func kernelMount(m specs.Mount, k bundle.Kernel) specs.Mount {
	m.Options = without(m.Options, isPropagation)
	switch {
	case k.HugePages != 0:
		m.Type, m.Source = "hugetlbfs", "nodev"
		m.Options = []string{fmt.Sprintf("pagesize=%d", k.HugePages)}
	case k.Type != "":
		m.Type, m.Source = k.Type, k.Type
		m.Options = without(m.Options, func(o string) bool { return o == "bind" || o == "rbind" })
	default:
		m.Source = k.Path
	}
	return m
}

// isPropagation reports whether an option is about mounts that come later, of which
// those of the host are none in the guest.
func isPropagation(option string) bool {
	return strings.HasSuffix(option, "shared") || strings.HasSuffix(option, "slave")
}

// bindMount is a bind mount from the share. Propagation is between mounts of the
// host; in the guest every mount of the share is a plain one. There the host's
// mounts below it are made when a path leads over them, as read-only as it is, so
// only "nothing may be written" can be said; what is finer the host enforces alone.
func bindMount(m specs.Mount, source Source) specs.Mount {
	access := accessOf(m)
	m.Source = source.Path
	m.Options = without(m.Options, func(o string) bool {
		return o == "ro" || o == "rro" || isPropagation(o)
	})
	for i, o := range m.Options {
		// What is below is mounted later, with the attributes of what it is below; crun
		// can give those of access times to no mount that has others.
		if strings.HasPrefix(o, "r") && slices.Contains(recursive, o[1:]) {
			m.Options[i] = o[1:]
		}
	}
	if access == share.WriteNothing || source.ReadOnly {
		m.Options = append(m.Options, "ro")
	}
	return m
}

// recursive are the options that there are with an r before them, for a mount and all
// below it, but for those of access.
var recursive = []string{
	"suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
}

// unmapped drops the id mappings of a mount, which the host has applied.
//
// A pod with a user namespace has it in the guest, with the mappings that it
// would have on the host: what the host exposes as the files of a mapped user
// are those of that user for the guest as well.
func unmapped(m specs.Mount) specs.Mount {
	m.UIDMappings, m.GIDMappings = nil, nil
	m.Options = without(m.Options, func(o string) bool { return o == "idmap" || o == "ridmap" })
	return m
}

// Bind reads how the source of a bind mount is exposed; a relative source is
// below dir. Without a word about propagation later mounts of the host appear,
// as in a container on the host, whose root receives them.
func Bind(m specs.Mount, dir string) share.Bind {
	b := share.Bind{Source: m.Source, Access: accessOf(m), IDs: idMapOf(m), Deep: true, Follow: true}
	if !filepath.IsAbs(b.Source) {
		b.Source = filepath.Join(dir, b.Source)
	}
	for _, option := range m.Options {
		switch option {
		case "bind":
			b.Deep = false
		case "rbind":
			b.Deep = true
		case "private", "rprivate", "unbindable", "runbindable":
			b.Follow = false
		case "slave", "rslave", "shared", "rshared":
			b.Follow = true
		}
	}
	return b
}

// IsReadOnly reports whether a mount is read-only for its container, at least
// at its top.
func IsReadOnly(m specs.Mount) bool { return accessOf(m) != share.WriteAll }

// accessOf reads the options of a mount; the last one that says something counts.
func accessOf(m specs.Mount) share.Access {
	access := share.WriteAll
	for _, option := range m.Options {
		switch option {
		case "ro":
			access = share.WriteBelow
		case "rro":
			access = share.WriteNothing
		case "rw", "rrw":
			access = share.WriteAll
		}
	}
	return access
}

// idMapOf reads the id mappings of a mount, which the host applies.
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
