package agent_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/image"
)

// privileged gives a specification what mounting and the network need. The
// network is the guest's own.
func privileged(s *specs.Spec) *specs.Spec {
	caps := []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_FOWNER"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"})
	s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	return s
}

// TestModulesOnDemand does in a privileged container what needs modules that
// nobody has loaded.
func TestModulesOnDemand(t *testing.T) {
	v := bootGuest(t, modularGuest, nil)
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "p"})
	v.run("p", privileged(spec("sleep", "3600")))
	for _, tt := range []struct {
		name, script string
		modules      []string // that are loaded afterwards, and not before
	}{
		{"overlay", `mkdir /tmp/u /tmp/w /tmp/m
			mount -t overlay -o lowerdir=/bin,upperdir=/tmp/u,workdir=/tmp/w o /tmp/m && [ -e /tmp/m/busybox ] && umount /tmp/m`, []string{"overlay"}},
		{"bridge", "brctl addbr br0 && ip link show br0", []string{"bridge", "stp", "llc"}},
		{"dummy", "ip link add d0 type dummy", []string{"dummy"}},
		{"veth", "ip link add v0 type veth && ip link show v0", []string{"veth"}},
		{"tun", "mknod /tmp/tun c 10 200 && : </tmp/tun", []string{"tun"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := v.t
			v.t = t
			defer func() { v.t = outer }()
			for _, m := range tt.modules {
				if v.loaded(m) {
					t.Errorf("%s is loaded before it is needed", m)
				}
			}
			start := time.Now()
			p := v.exec("p", tt.name, privileged(spec("sh", "-c", tt.script)).Process)
			if got := p.wait(); got != 0 {
				t.Fatalf("exit status %d: %s%s", got, p.stdout.String(), p.err.String())
			}
			t.Logf("took %v", time.Since(start).Round(time.Millisecond))
			for _, m := range tt.modules {
				if !v.loaded(m) {
					t.Errorf("%s is not loaded", m)
				}
			}
		})
	}
	p := v.exec("p", "unknown", privileged(spec("mount", "-t", "nosuchfs", "none", "/tmp")).Process)
	if got := p.wait(); got == 0 || !strings.Contains(p.err.String(), "No such device") {
		t.Errorf("unknown file system: exit status %d: %s", got, p.err.String())
	}
	if console := v.console.String(); strings.Contains(console, "modprobe") {
		t.Errorf("console:\n%s", console)
	}
}

// loaded reports whether the guest's kernel lists a module.
func (v *vm) loaded(module string) bool {
	v.t.Helper()
	list := v.call(hyperstart.ReadFile, map[string]string{"file": "/proc/modules"})
	return strings.Contains("\n"+string(list), "\n"+module+" ")
}

// natScript is what redirects the connections of a pod to a proxy of its own.
const natScript = `set -e
	PROG=$1
	$PROG -t nat -N REDIR
	$PROG -t nat -A REDIR -p tcp -j REDIRECT --to-ports 15001 -m comment --comment proxy
	$PROG -t nat -A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIR
	$PROG -t nat -A POSTROUTING -m addrtype --src-type LOCAL -j MASQUERADE
	$PROG -t nat -A PREROUTING -p tcp -m multiport --dports 80,443 -j DNAT --to-destination $2
	$PROG -t mangle -A PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j MARK --set-mark 1
	$PROG -t filter -A INPUT -m mark --mark 1 -j ACCEPT
	$PROG -A INPUT -p udp --dport 9 -m limit --limit 1/s -j LOG --log-prefix x
	$PROG -A INPUT -p udp --dport 9 -j REJECT
	$PROG -A INPUT -m hashlimit --hashlimit-above 9/s --hashlimit-mode srcip --hashlimit-name h -m recent --set -m connlimit --connlimit-above 9 -j DROP
	$PROG -A FORWARD -m statistic --mode random --probability 0.5 -m connmark --mark 1 -m state --state NEW -m length --length 1:9 -j DROP
	$PROG -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -m tcpmss --mss 1400:1500 -j TCPMSS --clamp-mss-to-pmtu
	$PROG -t mangle -A PREROUTING -p tcp -m socket -j MARK --set-mark 1
	$PROG -t mangle -A PREROUTING -p tcp --dport 81 -j TPROXY --on-port 82
	$PROG -t raw -A PREROUTING -p udp --dport 9 -j CT --notrack
	$PROG -A INPUT -m pkttype --pkt-type broadcast -m dscp --dscp 1
	$PROG -A INPUT -m u32 --u32 0=1
	$PROG -A INPUT -p udp --dport 11 -j NFLOG
	$PROG -A OUTPUT -p udp --dport 10 -j NFQUEUE --queue-num 1
	$PROG -t nat -S`

// TestIPTables runs the distribution's iptables, with both of its back-ends, in
// a privileged container.
func TestIPTables(t *testing.T) {
	more := iptablesFiles(t)
	v := bootWith(t, more)
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "p"})
	s := privileged(spec("sleep", "3600"))
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_NET_RAW")
	v.run("p", s)
	for _, tt := range []struct{ prog, to string }{
		{"xtables-nft-multi iptables", "10.0.0.1"},
		{"xtables-nft-multi ip6tables", "fd00::1"},
		{"xtables-legacy-multi iptables", "10.0.0.1"},
		{"xtables-legacy-multi ip6tables", "fd00::1"},
	} {
		process := privileged(spec("sh", "-c", natScript, "sh", tt.prog, tt.to)).Process
		caps := append(process.Capabilities.Bounding, "CAP_NET_RAW")
		process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		process.Env = append(process.Env, "XTABLES_LIBDIR=/xtables", "XTABLES_LOCKFILE=/tmp/lock")
		start := time.Now()
		p := v.exec("p", strings.ReplaceAll(tt.prog, " ", "-"), process)
		if got := p.wait(); got != 0 || !strings.Contains(p.stdout.String(), "--to-ports 15001") {
			t.Errorf("%s: exit status %d: %s%s", tt.prog, got, p.stdout.String(), p.err.String())
		}
		t.Logf("%s took %v", tt.prog, time.Since(start).Round(time.Millisecond))
	}
}

// iptablesFiles are the host's iptables, its extensions and libraries.
func iptablesFiles(t *testing.T) []image.Addition {
	t.Helper()
	extensions, err := filepath.Glob("/usr/lib/*/xtables")
	must(t, err)
	if len(extensions) != 1 {
		t.Skip("iptables is not installed")
	}
	more := []image.Addition{{Source: extensions[0], Dest: "/rootfs/xtables"}}
	libraries := map[string]bool{}
	for _, name := range []string{"xtables-nft-multi", "xtables-legacy-multi"} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		more = append(more, image.Addition{Source: program, Dest: "/rootfs/bin/" + name})
		// One of the extensions does arithmetic.
		out, err := exec.CommandContext(t.Context(), "ldd", program, filepath.Join(extensions[0], "libxt_statistic.so")).Output()
		must(t, err)
		for _, lib := range regexp.MustCompile(`/[^\s:]+ `).FindAllString(string(out), -1) {
			libraries[strings.TrimSpace(lib)] = true
		}
	}
	for lib := range libraries {
		file, err := filepath.EvalSymlinks(lib)
		must(t, err)
		more = append(more, image.Addition{Source: file, Dest: "/rootfs" + lib})
	}
	return more
}
