package install

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestTheirsBelowPrefix: in a directory that others use as well nothing of theirs goes.
func TestTheirsBelowPrefix(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	h.Prefix = "/opt"
	write(t, h.at("/opt/cni/bin/bridge"), "theirs")
	write(t, h.at("/opt/README"), "theirs")
	before := tree(t, h)
	install(t, h, bundleOf(t, "1.0"))
	install(t, h, bundleOf(t, "1.1"))
	if after := tree(t, h); after["/opt/cni/bin/bridge"] != "theirs" || after["/opt/1.0"] != "" {
		t.Errorf("upgraded: %v", after)
	}
	uninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("uninstalled (-before +after):\n%s", diff)
	}
	for _, path := range []string{"/opt/1.0/x", "/opt/current"} {
		h := hostWith(t, "version = 2\n")
		h.Prefix = "/opt"
		write(t, h.at(path), "theirs")
		if err := Install(h, bundleOf(t, "1.0"), false, io.Discard); err == nil || !strings.Contains(err.Error(), "not ccv2's") && !strings.Contains(err.Error(), "no link of ccv2's") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestTheirDropIn: a drop-in that somebody has changed stays, and one that is not ours is
// refused.
func TestTheirDropIn(t *testing.T) {
	const path, text = "/etc/containerd/conf.d/ccv2.toml", "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n"
	h := hostWith(t, text)
	install(t, h, bundleOf(t, "1.0"))
	mine := tree(t, h)[path] + "  snapshotter = \"erofs\"\n"
	write(t, h.at(path), mine)
	if out := install(t, h, bundleOf(t, "1.1")); tree(t, h)[path] != mine || !strings.Contains(out, path+" was changed by hand and stays") {
		t.Errorf("%s: %s", out, tree(t, h)[path])
	}
	uninstall(t, h)
	if got := tree(t, h)[path]; got != mine {
		t.Errorf("uninstalled: %q", got)
	}
	h = hostWith(t, text)
	write(t, h.at(path), "# theirs\n")
	if err := Install(h, bundleOf(t, "1.0"), false, io.Discard); err == nil || !strings.Contains(err.Error(), path+" is there and not ccv2's") {
		t.Error(err)
	}
}

// TestTheirsInNew: a configuration that was made for the runtime, and that others write
// into, is of the same version after an upgrade and after the runtime is gone.
func TestTheirsInNew(t *testing.T) {
	const theirs = "[metrics]\n  address = \"x\"\n"
	for name, add := range map[string]func(text string) string{
		"after":  func(text string) string { return text + theirs },
		"before": func(text string) string { return strings.Replace(text, "# BEGIN", theirs+"# BEGIN", 1) },
	} {
		h := hostWith(t, "-")
		install(t, h, bundleOf(t, "1.0"))
		text := add(tree(t, h)[h.Containerd])
		write(t, h.at(h.Containerd), text)
		install(t, h, bundleOf(t, "1.1"))
		if got := tree(t, h)[h.Containerd]; got != text {
			t.Errorf("%s, upgraded: %s", name, got)
		}
		uninstall(t, h)
		if got := tree(t, h)[h.Containerd]; got != "version = 2\n"+theirs {
			t.Errorf("%s, uninstalled: %s", name, got)
		}
	}
}

// TestLinked: what a link points to is edited, with its owner, and the link stays.
func TestLinked(t *testing.T) {
	h := hostWith(t, "-")
	write(t, h.at("/data/containerd.toml"), "version = 2\n")
	write(t, h.at("/etc/containerd/x"), "")
	for path, target := range map[string]string{h.Containerd: "../../data/link.toml", "/data/link.toml": "/data/containerd.toml"} {
		if err := os.Symlink(target, h.at(path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(h.at("/data/containerd.toml"), 12, 34); err != nil {
		t.Skip("not without rights:", err)
	}
	before := tree(t, h)
	install(t, h, bundleOf(t, "1.0"))
	if got := tree(t, h)["/data/containerd.toml"]; !strings.Contains(got, "runtimes.ccv2]") {
		t.Errorf("not edited: %q", got)
	}
	uninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	var st unix.Stat_t
	if err := unix.Stat(h.at("/data/containerd.toml"), &st); err != nil || st.Uid != 12 || st.Gid != 34 {
		t.Errorf("%v, owner %d:%d", err, st.Uid, st.Gid)
	}
}

// TestOtherPaths: what was at the paths of before goes, and the paths are remembered.
func TestOtherPaths(t *testing.T) {
	h := hostWith(t, "-")
	before := tree(t, h)
	other := h
	other.Containerd, other.Bin, other.Config = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl", "/usr/bin", "/etc/k3s/ccv2.toml"
	install(t, other, bundleOf(t, "1.0"))
	recorded, err := h.Recorded()
	if err != nil || fmt.Sprint(recorded) != fmt.Sprint(other) {
		t.Errorf("%+v, %v", recorded, err)
	}
	install(t, h, bundleOf(t, "1.1"))
	after := tree(t, h)
	if after[other.Containerd] != "" || after["/usr/bin/ccv2"] != "" || after[other.Config] != "" || after[h.Containerd] == "" {
		t.Errorf("%v", after)
	}
	uninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestUsers: processes are found behind a link, and the tool itself is none of them.
func TestUsers(t *testing.T) {
	dir := t.TempDir()
	h := Host{Root: "/", Prefix: dir + "/link/ccv2/", Bin: dir + "/bin", Config: dir + "/etc/c.toml", Containerd: dir + "/etc/containerd.toml"}
	write(t, dir+"/real/x", "")
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	bundle := bundleOf(t, "1.0")
	install(t, h, bundle)
	start(t, filepath.Join(dir, "real/ccv2/1.0/bin/ccv2"))
	if err := Uninstall(h, true, io.Discard, nil); err != nil {
		t.Errorf("the tool runs: %v", err)
	}
	start(t, filepath.Join(dir, "real/ccv2/1.0/bin/ccv2-exec"))
	if err := Uninstall(h, true, io.Discard, nil); err == nil {
		t.Error("uninstalled under a process")
	}
}

// start runs something by a path until the test ends.
func start(t *testing.T, path string) {
	t.Helper()
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// TestOtherLineEnds: an editor that writes other ends of lines changes nothing of a block.
func TestOtherLineEnds(t *testing.T) {
	h := hostWith(t, "version = 2\r\n")
	install(t, h, bundleOf(t, "1.0"))
	text := strings.ReplaceAll(strings.ReplaceAll(tree(t, h)[h.Containerd], "\r\n", "\n"), "\n", "\r\n")
	write(t, h.at(h.Containerd), text)
	uninstall(t, h)
	if got := tree(t, h)[h.Containerd]; got != "version = 2\r\n" {
		t.Errorf("%q", got)
	}
	// And a block without an end is said to be there.
	h = hostWith(t, "version = 2\n")
	install(t, h, bundleOf(t, "1.0"))
	write(t, h.at(h.Containerd), strings.ReplaceAll(tree(t, h)[h.Containerd], blockEnd, ""))
	if out := uninstall(t, h); !strings.Contains(out, "was changed by hand and stays") {
		t.Errorf("nothing is said of it: %s", out)
	}
}

// TestContainerdsOfOthers: what nothing can be added to is refused, and what Docker's
// package of containerd brings, without pods, needs nothing.
func TestContainerdsOfOthers(t *testing.T) {
	for _, text := range []string{
		"version = 2\nplugins = {}\n",
		"version = 2\n[plugins]\n'io.containerd.grpc.v1.cri' = {containerd = {runtimes = {runc = {runtime_type='x'}}}}\n",
	} {
		h := hostWith(t, text)
		if err := Install(h, bundleOf(t, "1.0"), false, io.Discard); err == nil || !strings.Contains(err.Error(), "nothing was changed") || tree(t, h)[h.Containerd] != text {
			t.Errorf("%q: %v", text, err)
		}
	}
	// What is between braces somewhere else is no hindrance.
	for _, text := range []string{
		"version = 2\nproxy_plugins = {}\n",
		"version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nregistry = {}\ncontainerd.runtimes.runc = {runtime_type='x'}\n",
	} {
		h := hostWith(t, text)
		before := tree(t, h)
		install(t, h, bundleOf(t, "1.0"))
		if !strings.Contains(tree(t, h)[h.Containerd], "runtimes.ccv2]") {
			t.Errorf("%q: %s", text, tree(t, h)[h.Containerd])
		}
		uninstall(t, h)
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%q (-before +after):\n%s", text, diff)
		}
	}
	for _, text := range []string{"disabled_plugins = [\"cri\"]\n#root = \"/x\"\n", "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.runtime']\n"} {
		h := hostWith(t, text)
		if out := install(t, h, bundleOf(t, "1.0")); tree(t, h)[h.Containerd] != text || !strings.Contains(out, "disables containerd's CRI") {
			t.Errorf("%q: %s: %s", text, out, tree(t, h)[h.Containerd])
		}
	}
}

// TestRepair: a tree that lacks something, or has something else, is replaced.
func TestRepair(t *testing.T) {
	h := hostWith(t, "-")
	bundle := bundleOf(t, "1.0")
	install(t, h, bundle)
	whole := tree(t, h)
	for name, damage := range map[string]func() error{
		"link":  func() error { return os.Remove(h.at("/opt/ccv2/1.0/bin/containerd-shim-cc-v2")) },
		"file":  func() error { return os.Truncate(h.at("/opt/ccv2/1.0/bin/ccv2"), 1) },
		"other": func() error { return os.Rename(h.at("/opt/ccv2/1.0/bin"), h.at("/opt/ccv2/1.0.part")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		install(t, h, bundle)
		if diff := cmp.Diff(whole, tree(t, h)); diff != "" {
			t.Errorf("%s (-whole +repaired):\n%s", name, diff)
		}
	}
}
