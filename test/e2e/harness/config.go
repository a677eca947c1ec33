//go:build e2e

package harness

import (
	"fmt"
	"path/filepath"
	"strings"
)

// criPaths are what the CRI is configured with.
type criPaths struct {
	cni     string // directory of the network's configuration
	plugins string // directory of the network's plugins
}

// config is the daemon's configuration, in the form of its release.
func (c *Containerd) config() string {
	var b strings.Builder
	version := 4
	switch {
	case c.release.before(v20):
		version = 2
	case c.release.before(v23):
		version = 3
	}
	fmt.Fprintf(&b, "version = %d\nroot = %q\nstate = %q\n", version, filepath.Join(c.Dir, "root"), filepath.Join(c.Dir, "state"))
	if c.cri == nil { // a small daemon when no pods are wanted
		b.WriteString(`disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]` + "\n")
	}
	if version < 4 { // its sockets are where they usually are
		fmt.Fprintf(&b, "[grpc]\naddress = %q\n", c.socketPath())
	} else {
		fmt.Fprintf(&b, servers, c.socketPath(), c.socketDir())
	}
	switch {
	case c.cri == nil:
	case version == 2:
		fmt.Fprintf(&b, criConfig2, c.cri.cni, c.cri.plugins)
	case c.release.before(v22):
		fmt.Fprintf(&b, criConfig, c.cri.cni, fmt.Sprintf("bin_dir = %q", c.cri.plugins))
	default:
		fmt.Fprintf(&b, criConfig, c.cri.cni, fmt.Sprintf("bin_dirs = [%q]", c.cri.plugins))
	}
	return b.String()
}

// servers are the sockets of version 4.
const servers = `[plugins.'io.containerd.server.v1.grpc']
address = %[1]q
[plugins.'io.containerd.server.v1.ttrpc']
address = "%[1]s.ttrpc"
[plugins.'io.containerd.shim.v1.manager']
socket_dir = %[2]q
`

// criConfig is for pods, in versions 3 and 4.
const criConfig = `
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "` + pauseName + `"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
conf_dir = %[1]q
%[2]s
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "ccv2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]
runtime_type = "` + Runtime + `"
`

// criConfig2 is the same in version 2.
const criConfig2 = `
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = "` + pauseName + `"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.grpc.v1.cri'.cni]
conf_dir = %[1]q
bin_dir = %[2]q
[plugins.'io.containerd.grpc.v1.cri'.containerd]
default_runtime_name = "ccv2"
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ccv2]
runtime_type = "` + Runtime + `"
`
