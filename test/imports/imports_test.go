// Package imports_test holds the packages of the module to the directions in
// which they may import each other, through any number of packages between.
package imports_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/ccv2/containerd-shim-ccv2/"

// rule forbids imports to packages.
type rule struct {
	from   string   // pattern of packages, without the module's name
	not    []string // what they must not import: patterns
	except []string // what they may import anyway
	why    string
}

// std represents everything outside of the standard library.
const std = "outside of std"

var rules = []rule{
	{
		from: "pkg/proxyproto/...", not: []string{std}, except: []string{module + "pkg/proxyproto/..."},
		why: "a codec is copied into other projects: standard library only",
	},
	{
		from: "pkg/guest/hyperstart/...", not: []string{std}, except: []string{module + "pkg/guest/hyperstart/..."},
		why: "a codec is copied into other projects: standard library only",
	},
	{
		from: "pkg/guest/activity/...", not: []string{std},
		why: "whatever has a part in a request imports it",
	},
	{
		from: "pkg/guest/layout/...", not: []string{std},
		why: "every side imports it: the host, the image builder and the agent",
	},
	{
		from: "pkg/hypervisor/qmp/...", not: []string{std}, except: []string{module + "pkg/hypervisor/qmp/..."},
		why: "a codec is copied into other projects: standard library only",
	},
	{
		from: "pkg/guest/...",
		not: []string{
			"github.com/containerd/containerd/...", "github.com/containerd/ttrpc/...", "google.golang.org/grpc/...",
			module + "pkg/shim/...", module + "config/...",
		},
		// go-runc, which drives the OCI runtime, takes one name from it.
		except: []string{"github.com/containerd/containerd/api/types/..."},
		why:    "all that speaks to containerd stands under pkg/shim",
	},
	{
		from: "pkg/guest/client/...",
		not:  []string{module + "pkg/guest/proxy/...", module + "pkg/guest/proxyv1/...", module + "pkg/guest/guestconn/...", module + "pkg/guest/agent/..."},
		why:  "client and server share the frames alone",
	},
	{
		from: "pkg/guest/agent/internal/...", not: []string{module + "pkg/guest/agent/...", module + "pkg/guest/hyperstart/..."},
		except: []string{module + "pkg/guest/agent/internal/..."},
		why:    "every package of the agent uses them",
	},
	agentPackage("streams"), agentPackage("netconf"), agentPackage("cgroups"), agentPackage("machine"), agentPackage("ociruntime"), agentPackage("shared"), agentPackage("dnsrelay"), agentPackage("original"), agentPackage("commands"), agentPackage("rlimits"), agentPackage("shell"),
	{
		from: "pkg/guest/proxy/...", not: []string{module + "pkg/guest/client/..."},
		why: "client and server share the frames alone",
	},
	{
		from: "pkg/guest/proxyv1/...", not: []string{module + "pkg/guest/client/...", module + "pkg/shim/...", module + "pkg/hypervisor/..."},
		why: "it is a client of the proxy for other clients",
	},
	{
		from: "pkg/hypervisor/...",
		not:  []string{module + "pkg/shim/...", module + "config/...", module + "pkg/guest/...", "github.com/containerd/containerd/..."},
		why:  "a VM knows nothing of what runs in it, or for whom",
	},
	{
		from: "pkg/shim/sandbox/...",
		not: []string{
			"github.com/containerd/containerd/api/...", "github.com/containerd/ttrpc/...", "github.com/vishvananda/netlink/...",
			module + "pkg/hypervisor/...", module + "pkg/guest/proxy/...", module + "pkg/guest/proxyv1/...", module + "pkg/guest/guestconn/...",
			module + "pkg/shim/podvm/...", module + "pkg/shim/podnet/...", module + "pkg/shim/network/...", module + "pkg/shim/portforward/...", module + "pkg/shim/dnsrelay/...", module + "pkg/shim/guestclock/...", module + "pkg/shim/sharelimit/...", module + "pkg/shim/livevolume/...", module + "pkg/shim/blockdev/...",
			module + "pkg/shim/hostcgroup/...", module + "pkg/shim/store/...", module + "pkg/shim/reclaim/...", module + "pkg/shim/template/...", module + "pkg/shim/spare/...",
			module + "pkg/shim/task/...", module + "pkg/shim/events/...", module + "pkg/shim/manager/...", module + "pkg/shim/debug/...",
		},
		// containerd's core/mount, which mounts root file systems, knows them.
		except: []string{"github.com/containerd/containerd/api/types/..."},
		why:    "the domain asks a Machine and a Guest; services translate, and the command puts them together",
	},
	shimPackage("bootstrap"), shimPackage("bundle"), shimPackage("guestspec", "bundle", "share"), shimPackage("share"), shimPackage("nsjoin", "bundle"), shimPackage("validate", "bundle"), shimPackage("hooks", "bundle"), shimPackage("memoryvolume", "share"), shimPackage("exposure", "bundle", "guestspec", "memoryvolume", "placeholder", "share"), shimPackage("stdio"), shimPackage("streams", "stdio"),
	shimPackage("network"), shimPackage("podnet", "bundle", "network"), shimPackage("portforward"), shimPackage("dnsrelay"), shimPackage("guestclock"), shimPackage("sharelimit"), shimPackage("resident"), shimPackage("livevolume", "share"), shimPackage("blockdev"), shimPackage("placeholder"), shimPackage("hostcgroup"),
	shimPackage("template"), shimPackage("spare", "hostcgroup", "network", "store", "template"), shimPackage("store"), shimPackage("reclaim", "store", "hostcgroup", "network"),
	shimPackage("podvm", "blockdev", "bundle", "dnsrelay", "guestclock", "hostcgroup", "livevolume", "network", "placeholder", "podnet", "portforward", "reclaim", "share", "sharelimit", "store"),
	{
		from: "pkg/shim/debug/...",
		not:  []string{module + "pkg/shim/task/...", module + "pkg/shim/events/...", module + "pkg/shim/manager/..."},
		why:  "a service knows what it is over, and none of its siblings",
	},
	shimPackage("debug/debugapi"), shimPackage("calls"), shimPackage("spans", "store"),
	{
		from: "cmd/containerd-shim-ccv2/...", not: []string{"go.opentelemetry.io/..."},
		why: "the shim is started for each pod: it writes spans to a file, and others export them",
	},
	{
		from: "pkg/guest/wiretap/...", not: []string{module + "pkg/...", "github.com/..."},
		except: []string{module + "pkg/guest/wiretap/...", module + "pkg/guest/hyperstart/...", module + "pkg/proxyproto/...", module + "pkg/printable/..."},
		why:    "whoever passes messages has it, and the operator's tool",
	},
	{
		from: "pkg/shim/guestspec/...",
		not:  []string{module + "pkg/guest/...", module + "pkg/hypervisor/..."},
		why:  "a specification is turned into another one, whoever carries it",
	},
	{
		from: "pkg/shim/share/...",
		not: []string{
			module + "pkg/shim/sandbox/...", module + "pkg/shim/store/...", module + "pkg/shim/network/...",
			module + "pkg/hypervisor/...", module + "pkg/guest/...",
		},
		why: "files are exposed by path, whatever they are for",
	},
	{
		from: "pkg/printable/...", not: []string{std},
		why: "whatever takes text from a guest imports it",
	},
	{
		from: "pkg/internal/...", not: []string{module + "pkg/shim/...", module + "pkg/guest/...", module + "pkg/hypervisor/..."},
		why: "these are leaves",
	},
	{
		from: "pkg/shim/...",
		not:  []string{module + "pkg/hypervisor/qemu/...", module + "pkg/guest/agent/...", "github.com/opencontainers/runc/..."},
		why:  "only commands name an implementation",
	},
	{
		from: "config/...", not: []string{std}, except: []string{module + "config/...", "github.com/BurntSushi/toml/..."},
		why: "the configuration is a leaf",
	},
	{
		from: "cmd/ccv2-agent/...", not: []string{module + "pkg/shim/...", module + "pkg/hypervisor/...", module + "config/..."},
		why: "the agent runs in the guest",
	},
	{
		from: "cmd/containerd-shim-ccv2/...", not: []string{"github.com/moby/moby/...", "github.com/prometheus/..."},
		why: "the shim is started for each pod: it asks no engine, and others make metrics of what it counts",
	},
	operating("operate", "sandboxes", "metrics", "otlp", "trace", "operator", "watch"), operating("watch", "sandboxes", "metrics", "otlp", "trace", "operator"), operating("operator", "sandboxes"),
	operating("sandboxes"), operating("metrics", "otlp", "sandboxes"), operating("otlp"), operating("trace"),
	{
		from: "cmd/ccv2/internal/manual/...", not: []string{module + "pkg/...", module + "cmd/..."}, except: []string{module + "cmd/ccv2/internal/manual/..."},
		why: "it says what commands say of themselves",
	},
	installing("install"), installing("kind"), installing("kube"), installing("node"),
	{
		from: "cmd/ccv2/internal/kind/...", not: []string{module + "cmd/ccv2/internal/install/..."},
		why: "what is changed in a node is the tool's that runs there",
	},
	{
		from: "cmd/...", not: []string{"testing", module + "pkg/guest/guesttest/...", module + "pkg/guest/agent/ociruntime/fake/...", module + "pkg/hypervisor/fake/..."},
		why: "test helpers do not belong in binaries",
	},
}

// operating returns the rule for a part of what looks at sandboxes.
func operating(name string, siblings ...string) rule {
	r := rule{
		from: "cmd/ccv2/internal/" + name + "/...",
		not:  []string{module + "pkg/shim/sandbox/...", module + "pkg/shim/podvm/...", module + "pkg/hypervisor/...", module + "pkg/guest/...", module + "cmd/..."},
		// What reclaim releases links with has the types of an interface.
		except: []string{module + "cmd/ccv2/internal/" + name + "/...", module + "pkg/guest/hyperstart/...", module + "pkg/guest/wiretap/..."},
		why:    "a sandbox is its record and what its shim says, of whatever release it is",
	}
	for _, sibling := range siblings {
		r.except = append(r.except, module+"cmd/ccv2/internal/"+sibling+"/...")
	}
	return r
}

// installing returns the rule for a part of installing.
func installing(name string) rule {
	return rule{
		from: "cmd/ccv2/internal/" + name + "/...", not: []string{module + "pkg/...", module + "config/...", module + "cmd/..."},
		except: []string{module + "cmd/ccv2/internal/..."},
		why:    "installing knows nothing of VMs; the command boots and measures one",
	}
}

// agentPackage returns the rule for a package of the agent: the agent puts them together, and
// none knows another one.
func agentPackage(name string) rule {
	return rule{
		from: "pkg/guest/agent/" + name + "/...", not: []string{module + "pkg/guest/agent/..."},
		except: []string{module + "pkg/guest/agent/" + name + "/...", module + "pkg/guest/agent/internal/..."},
		why:    "only the agent puts its packages together",
	}
}

// shimPackage is the rule for a part of the shim: of its siblings it imports those
// named, and nothing that is built from them.
func shimPackage(name string, siblings ...string) rule {
	r := rule{
		from: "pkg/shim/" + name + "/...", not: []string{module + "pkg/shim/..."}, except: []string{module + "pkg/shim/" + name + "/..."},
		why: "the packages of the shim have one-way arrows, docs/architecture.md",
	}
	for _, sibling := range siblings {
		r.except = append(r.except, module+"pkg/shim/"+sibling+"/...")
	}
	return r
}

// pkg is what go list tells about a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", "no_grpc", "-json=ImportPath,Standard,Imports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
}

func match(path string, patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, tree := strings.CutSuffix(pattern, "/...")
		return path == prefix || tree && strings.HasPrefix(path, prefix+"/")
	})
}

// broken returns the chain of imports from start to what the rule forbids, nil
// when there is none.
func (r rule) broken(pkgs map[string]pkg, start string) []string {
	seen := map[string]bool{}
	var walk func(path string) []string
	walk = func(path string) []string {
		if seen[path] {
			return nil
		}
		seen[path] = true
		p := pkgs[path]
		forbidden := match(path, r.not...) || slices.Contains(r.not, std) && !p.Standard
		if path != start && forbidden && !match(path, r.except...) {
			return []string{path}
		}
		if p.Standard {
			return nil
		}
		for _, next := range p.Imports {
			if chain := walk(next); chain != nil {
				return append([]string{path}, chain...)
			}
		}
		return nil
	}
	return walk(start)
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	for _, r := range rules {
		found := false
		for path := range pkgs {
			if !match(path, module+r.from) {
				continue
			}
			found = true
			if chain := r.broken(pkgs, path); chain != nil {
				t.Errorf("%s: %s\n\t%s", path, r.why, strings.Join(chain, "\n\t-> "))
			}
		}
		if !found {
			t.Errorf("rule for %s matches no package", r.from)
		}
	}
}

// A rule that cannot fail proves nothing.
func TestRulesCanFail(t *testing.T) {
	pkgs := map[string]pkg{
		"a":   {ImportPath: "a", Imports: []string{"b", "fmt"}},
		"b":   {ImportPath: "b", Imports: []string{"c/d"}},
		"c/d": {ImportPath: "c/d", Imports: []string{"fmt"}},
		"fmt": {ImportPath: "fmt", Standard: true},
	}
	for _, tt := range []struct {
		name string
		rule rule
		want string
	}{
		{"through another", rule{not: []string{"c/..."}}, "a b c/d"},
		{"not std", rule{not: []string{std}}, "a b"},
		{"excepted", rule{not: []string{std}, except: []string{"b", "c/..."}}, ""},
		{"prefix of a name", rule{not: []string{"c/d/..."}, except: []string{"b"}}, "a b c/d"},
		{"not a prefix", rule{not: []string{"c/dd/..."}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(tt.rule.broken(pkgs, "a"), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The first table of the page is the list of direct dependencies, no more and
// no less.
func TestDependenciesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## The module\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var got []string
	for row := range strings.Lines(table) {
		if cells := strings.Split(row, " | "); len(cells) == 4 && strings.Contains(cells[0], "/") {
			got = append(got, strings.TrimPrefix(cells[0], "| ")+" "+cells[1])
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}} {{.Version}}{{end}}", "all")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(strings.Split(string(out), "\n"), func(s string) bool { return s == "" })
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/dependencies.md (-go.mod +page):\n%s", diff)
	}
}
