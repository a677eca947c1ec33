package sandbox

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// guestSpecVersion is what every runtime in a guest accepts: crun of Debian 12
// refuses versions after 1.0, although it ignores what it does not know.
const guestSpecVersion = "1.0.2"

// bindMount is a bind mount of a specification and where the guest finds its source.
type bindMount struct {
	mount *specs.Mount // in the specification
	name  string       // path below the shared directory
	guard bool         // the guest keeps the container from writing
}

// guestSpec turns a host's specification into the guest's, in place. Each step
// is one concern; their order does not matter.
func guestSpec(spec *specs.Spec, id, rootfs string, own bool, joined map[specs.LinuxNamespaceType]string) {
	spec.Version = guestSpecVersion
	if spec.Root == nil {
		spec.Root = &specs.Root{}
	}
	spec.Root.Path = rootfs
	spec.Hooks = nil // they are for the host's programs
	guestNamespaces(spec, own, joined)
	if !bundle.HasNamespace(spec, specs.UTSNamespace) {
		spec.Hostname, spec.Domainname = "", "" // the guest has the pod's
	}
	guestShm(spec)
	guestMappings(spec)
	// On a host with cgroup v1 a container has no cgroup namespace; in the
	// guest, which has v2, it needs one to see its own group and no other.
	if !bundle.HasNamespace(spec, specs.CgroupNamespace) {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	guestResources(spec.Linux)
	guestLabels(spec)
	spec.Linux.CgroupsPath = "/ccv2/" + id
}

// guestNamespaces keeps what separates containers from each other in the
// guest, and drops what separates them from the host, which the VM does. A
// path names a namespace of the host, that is, of the pod: in the guest that
// is the guest's own, or one of a container of the pod, whose path there joined
// has.
//
// The sandbox's own container makes the namespaces that others join, so its
// IPC and UTS namespaces are the guest's, too, but for a pod with a user
// namespace, which would have no rights in those.
func guestNamespaces(spec *specs.Spec, own bool, joined map[specs.LinuxNamespaceType]string) {
	linux := spec.Linux
	users := bundle.HasNamespace(spec, specs.UserNamespace)
	kept := linux.Namespaces[:0]
	for _, ns := range linux.Namespaces {
		shared := own && !users && (ns.Type == specs.IPCNamespace || ns.Type == specs.UTSNamespace)
		if own && ns.Type == specs.UserNamespace {
			ns.Path = "" // some clients keep one on the host; the mappings are there as well
		}
		if shared || ns.Type == specs.NetworkNamespace || (ns.Path != "" && joined[ns.Type] == "") {
			continue
		}
		if ns.Path != "" {
			ns.Path = joined[ns.Type]
		}
		kept = append(kept, ns)
	}
	linux.Namespaces = kept
}

// guestShm replaces the host's /dev/shm of the pod by the guest's, which all
// containers of the pod share as well, at memory's speed.
func guestShm(spec *specs.Spec) {
	for i, m := range spec.Mounts {
		if bundle.IsShm(m) {
			spec.Mounts[i].Source = hyperstart.ShmMount
		}
	}
}

// guestHugePages replaces a volume of the host's huge pages by one of the
// guest's: memory of the host cannot be mapped through a share. It reports
// whether it has.
func guestHugePages(m *specs.Mount) bool {
	var st unix.Statfs_t
	if unix.Statfs(m.Source, &st) != nil || st.Type != unix.HUGETLBFS_MAGIC {
		return false
	}
	m.Type, m.Source = "hugetlbfs", "nodev"
	m.Options = []string{fmt.Sprintf("pagesize=%d", st.Bsize)}
	return true
}

// guestResources drops limits that name hardware of the host.
func guestResources(linux *specs.Linux) {
	linux.IntelRdt = nil
	r := linux.Resources
	if r == nil {
		return
	}
	if r.CPU != nil {
		r.CPU.Cpus, r.CPU.Mems = "", "" // the host's numbering
		r.CPU.RealtimePeriod, r.CPU.RealtimeRuntime = nil, nil
	}
	r.Network, r.Rdma = nil, nil
	if r.BlockIO != nil { // major and minor numbers of the host's disks
		*r.BlockIO = specs.LinuxBlockIO{Weight: r.BlockIO.Weight}
	}
	if r.Memory != nil {
		r.Memory.Kernel, r.Memory.KernelTCP, r.Memory.Swappiness = nil, nil, nil //nolint:staticcheck // cgroup v1 fields that runtimes refuse on v2
	}
	// Device rules stay: they are about numbers that are the same everywhere.
}

// guestLabels drops labels of security modules that the guest does not have.
func guestLabels(spec *specs.Spec) {
	spec.Process.ApparmorProfile = ""
	spec.Process.SelinuxLabel = ""
	spec.Linux.MountLabel = ""
}

func isReadOnly(m specs.Mount) bool { return accessOf(m) != share.WriteAll }

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

// bindOf reads how the source of a mount is exposed. Without a word about
// propagation later mounts of the host appear, as in a container on the host,
// whose root receives them.
func bindOf(m specs.Mount, bundle string) share.Bind {
	b := share.Bind{Source: m.Source, Access: accessOf(m), IDs: idMapOf(m), Deep: true, Follow: true}
	if !filepath.IsAbs(b.Source) {
		b.Source = filepath.Join(bundle, b.Source)
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

// shareMounts exposes the sources of all bind mounts to the guest.
func shareMounts(spec *specs.Spec, dir string, view *share.View) ([]bindMount, error) {
	var binds []bindMount
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if !bundle.IsBind(*m) || bundle.IsShm(*m) || guestHugePages(m) {
			continue
		}
		name, guard, err := view.Bind(bindOf(*m, dir))
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		binds = append(binds, bindMount{mount: m, name: name, guard: guard})
	}
	return binds, nil
}

// newContainerRequest makes the payload for a ccv2 guest.
func newContainerRequest(c *Container, joined map[specs.LinuxNamespaceType]string) (hyperstart.NewContainerRequest, error) {
	for _, b := range c.binds {
		b.mount.Source = filepath.Join(hyperstart.ShareMount, b.name)
		// Propagation is between mounts of the host; in the guest every mount
		// of the share is a plain one.
		b.mount.Options = slices.DeleteFunc(b.mount.Options, func(o string) bool {
			return strings.HasSuffix(o, "shared") || strings.HasSuffix(o, "slave")
		})
		guestReadOnly(b)
	}
	guestSpec(c.spec, c.ID, filepath.Join(hyperstart.ShareMount, c.view.RootfsPath()), c.isSandbox(), joined)
	raw, err := json.Marshal(c.spec)
	if err != nil {
		return hyperstart.NewContainerRequest{}, fmt.Errorf("encode specification: %w", err)
	}
	process := &hyperstart.Process{ID: hyperstart.InitProcess, Terminal: c.init.stdio.Terminal}
	setSize(process, c.spec.Process.ConsoleSize)
	return hyperstart.NewContainerRequest{ID: c.ID, Process: process, Spec: raw}, nil
}

// guestReadOnly says "read-only" in the guest's way. There a bind mount and all
// host mounts below it are one file system, so only "nothing may be written"
// can be said; what is finer the host enforces alone.
func guestReadOnly(b bindMount) {
	access := accessOf(*b.mount)
	b.mount.Options = slices.DeleteFunc(b.mount.Options, func(o string) bool { return o == "ro" || o == "rro" })
	if access == share.WriteNothing || b.guard {
		b.mount.Options = append(b.mount.Options, "ro")
	}
}

func setSize(p *hyperstart.Process, size *specs.Box) {
	const most = 1<<16 - 1
	if p.Terminal && size != nil && size.Height <= most && size.Width <= most {
		p.Rows, p.Columns = uint16(size.Height), uint16(size.Width)
	}
}

// execRequest makes the payload of EXECCMD for the guest's dialect.
func execRequest(p *Process, dialect hyperstart.Dialect) (hyperstart.ExecCmdRequest, error) {
	request := hyperstart.ExecCmdRequest{Container: p.container.ID}
	if dialect != hyperstart.DialectCCv2 {
		request.Process = legacyProcess(p.spec, p.guestID(), p.stdio.Terminal, dialect)
		return request, nil
	}
	p.spec.Terminal = p.stdio.Terminal
	p.spec.ApparmorProfile, p.spec.SelinuxLabel = "", ""
	raw, err := json.Marshal(p.spec)
	if err != nil {
		return request, fmt.Errorf("encode process: %w", err)
	}
	request.Process = &hyperstart.Process{ID: p.guestID(), Terminal: p.stdio.Terminal, OCI: raw}
	setSize(request.Process, p.spec.ConsoleSize)
	return request, nil
}
