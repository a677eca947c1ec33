package install

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bundleOf is an unpacked bundle of a version.
func bundleOf(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"VERSION": version + "\n", "bin/containerd-shim-ccv2": "shim of " + version, "bin/ccv2": "tool", "share/ccv2/vmlinux": "kernel",
		"share/ccv2/config.toml": "# of " + version + "\npath = \"/usr/bin/qemu-system-x86_64\"\nkernel = \"/usr/share/ccv2/vmlinux\"\nvirtiofsd = \"/usr/lib/qemu/virtiofsd\"\n",
	}
	var sums strings.Builder
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(text)), name)
	}
	write(t, filepath.Join(dir, "SHA256SUMS"), sums.String())
	if err := os.Symlink("containerd-shim-ccv2", filepath.Join(dir, "bin/containerd-shim-cc-v2")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// hostWith is a host with containerd's configuration; "-" for none.
func hostWith(t *testing.T, containerd string) Host {
	t.Helper()
	h := Defaults()
	h.Root = t.TempDir()
	write(t, h.at("/etc/hosts"), "127.0.0.1 localhost\n")
	if containerd != "-" {
		write(t, h.at(h.Containerd), containerd)
	}
	return h
}

// told is the time in a record.
var told = regexp.MustCompile(`,\n\t"told": "[^"]*"`)

// tree is all that there is on a host, with contents, but for the time in the record.
func tree(t *testing.T, h Host) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, h.Root)
		switch {
		case d.IsDir():
			all[name] = "directory"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			all[name] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(path)
			all[name] = told.ReplaceAllString(string(b), "")
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func install(t *testing.T, h Host, bundle string) string {
	t.Helper()
	var out bytes.Buffer
	if err := Install(h, bundle, false, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func uninstall(t *testing.T, h Host) string {
	t.Helper()
	var out bytes.Buffer
	if err := Uninstall(h, false, &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// containerds are configurations as they are found, and where the runtime gets to.
var containerds = []struct{ name, text, in, want string }{
	{"none", "-", "/etc/containerd/config.toml", "version = 2\n# BEGIN ccv2: written by `ccv2 install`, removed by `ccv2 uninstall`\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ccv2]"},
	{"empty of version 2", "version = 2\n", "/etc/containerd/config.toml", "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ccv2]"},
	{
		"with other runtimes and no end of its last line",
		"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"",
		"/etc/containerd/config.toml", "runtimes.ccv2]",
	},
	{"version 2, which replaces sections that it imports", "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n", "/etc/containerd/config.toml", "runtimes.ccv2]"},
	{"version 3", "version = 3\n[plugins]\n", "/etc/containerd/config.toml", "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]"},
	{"version 3 with imports", "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n", "/etc/containerd/conf.d/ccv2.toml", "version = 3\n\n[plugins.'io.containerd.cri.v1.runtime'"},
	{"version 4", "version = 4\n", "/etc/containerd/config.toml", "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]"},
}

// TestInstall: installed, installed again, upgraded and uninstalled, the host is what it
// was.
func TestInstall(t *testing.T) {
	for _, c := range containerds {
		t.Run(c.name, func(t *testing.T) {
			h := hostWith(t, c.text)
			before := tree(t, h)
			first := bundleOf(t, "1.0")
			install(t, h, first)
			once := tree(t, h)
			if !strings.Contains(once[c.in], c.want) || !strings.Contains(once[c.in], `runtime_path = "/opt/ccv2/current/bin/containerd-shim-ccv2"`) {
				t.Errorf("%s: %s", c.in, once[c.in])
			}
			if got := once["/etc/ccv2/config.toml"]; !strings.Contains(got, `"/opt/ccv2/current/bin/virtiofsd"`) || !strings.Contains(got, `"/opt/ccv2/current/share/ccv2/vmlinux"`) {
				t.Errorf("configuration: %s", got)
			}
			install(t, h, first)
			if diff := cmp.Diff(once, tree(t, h)); diff != "" {
				t.Errorf("installed again (-once +twice):\n%s", diff)
			}
			install(t, h, bundleOf(t, "1.1"))
			after := tree(t, h)
			if after["/opt/ccv2/current"] != "-> 1.1" || after["/opt/ccv2/1.0"] != "" || !strings.HasPrefix(after["/etc/ccv2/config.toml"], "# of 1.1") {
				t.Errorf("upgraded: %v", after)
			}
			uninstall(t, h)
			if diff := cmp.Diff(before, tree(t, h)); diff != "" {
				t.Errorf("uninstalled (-before +after):\n%s", diff)
			}
		})
	}
}

// TestTemplates: k3s makes containerd's configuration of a template, which names the
// version, and may not be there.
func TestTemplates(t *testing.T) {
	const dir = "/var/lib/rancher/k3s/agent/etc/containerd/"
	for _, c := range []struct{ name, text, want string }{
		{"config.toml.tmpl", "-", "{{ template \"base\" . }}\n# BEGIN ccv2: written by `ccv2 install`, removed by `ccv2 uninstall`\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ccv2]"},
		{"config-v3.toml.tmpl", "-", "{{ template \"base\" . }}\n# BEGIN ccv2: written by `ccv2 install`, removed by `ccv2 uninstall`\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]"},
		{"config-v3.toml.tmpl", "{{ template \"base\" . }}\n[metrics]\n  address = \"{{ .Node }}\"\n", "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]"},
	} {
		h := hostWith(t, "-")
		h.Containerd = dir + c.name
		if c.text != "-" {
			write(t, h.at(h.Containerd), c.text)
		}
		before := tree(t, h)
		install(t, h, bundleOf(t, "1.0"))
		once := tree(t, h)[h.Containerd]
		if !strings.Contains(once, c.want) {
			t.Errorf("%s: %s", c.name, once)
		}
		install(t, h, bundleOf(t, "1.0"))
		if got := tree(t, h)[h.Containerd]; got != once {
			t.Errorf("%s, installed again: %s", c.name, got)
		}
		uninstall(t, h)
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", c.name, diff)
		}
	}
}

// TestInterrupted: whatever is interrupted at any change comes to the same end when it
// is run again.
func TestInterrupted(t *testing.T) {
	stop := errors.New("interrupted")
	first, second := bundleOf(t, "1.0"), bundleOf(t, "1.1")
	for _, c := range containerds {
		// What is done before, what is interrupted, and run again.
		for name, act := range map[string]struct{ before, run func(h Host) error }{
			"install":   {func(Host) error { return nil }, func(h Host) error { return Install(h, first, false, io.Discard) }},
			"upgrade":   {func(h Host) error { return Install(h, first, false, io.Discard) }, func(h Host) error { return Install(h, second, false, io.Discard) }},
			"uninstall": {func(h Host) error { return Install(h, first, false, io.Discard) }, func(h Host) error { return Uninstall(h, false, io.Discard, nil) }},
		} {
			whole := hostWith(t, c.text)
			if err := errors.Join(act.before(whole), act.run(whole)); err != nil {
				t.Fatal(err)
			}
			want := tree(t, whole)
			for at, interrupted := 0, true; interrupted; at++ {
				h := hostWith(t, c.text)
				if err := act.before(h); err != nil {
					t.Fatal(err)
				}
				left := at
				interrupted = false
				broken := h
				broken.interrupt = func() error {
					if left--; left < 0 {
						interrupted = true
						return stop
					}
					return nil
				}
				if err := act.run(broken); interrupted != errors.Is(err, stop) {
					t.Fatalf("%s, %s at %d: %v", c.name, name, at, err)
				}
				if err := act.run(h); interrupted && err != nil {
					t.Errorf("%s, %s at %d: run again: %v", c.name, name, at, err)
				}
				if diff := cmp.Diff(want, tree(t, h)); diff != "" && interrupted {
					t.Errorf("%s, %s at %d (-whole +run again):\n%s", c.name, name, at, diff)
				}
				// And it can be taken away.
				if interrupted && name != "uninstall" {
					if err := Uninstall(h, false, io.Discard, nil); err != nil {
						t.Errorf("%s, %s at %d: uninstall: %v", c.name, name, at, err)
					}
				}
			}
		}
	}
}

// TestChangedByHand: what somebody has changed is never overwritten, and never lost.
func TestChangedByHand(t *testing.T) {
	h := hostWith(t, "version = 2\n")
	install(t, h, bundleOf(t, "1.0"))
	mine := tree(t, h)["/etc/ccv2/config.toml"] + "# mine\n"
	write(t, h.at(h.Config), mine)
	block := strings.Replace(tree(t, h)[h.Containerd], "runtime_type", "snapshotter = \"erofs\"\n  runtime_type", 1) + "[metrics]\n"
	write(t, h.at(h.Containerd), block)
	out := install(t, h, bundleOf(t, "1.1"))
	after := tree(t, h)
	if after[h.Config] != mine || !strings.HasPrefix(after[h.Config+".new"], "# of 1.1") || after[h.Containerd] != block {
		t.Errorf("overwritten: %v", after)
	}
	for _, path := range []string{h.Config, h.Containerd} {
		if !strings.Contains(out, path+" ") {
			t.Errorf("nothing is said of %s: %s", path, out)
		}
	}
	out = uninstall(t, h)
	if after = tree(t, h); after[h.Config] != mine || after[h.Containerd] != block {
		t.Errorf("lost: %v", after)
	}
	if !strings.Contains(out, h.Config+" was changed by hand and stays") || !strings.Contains(out, "block of ccv2 in "+h.Containerd) {
		t.Errorf("nothing is said of it: %s", out)
	}
}

// TestTheirsAround: what others write into containerd's configuration later stays.
func TestTheirsAround(t *testing.T) {
	h := hostWith(t, "version = 2\n# theirs")
	install(t, h, bundleOf(t, "1.0"))
	write(t, h.at(h.Containerd), tree(t, h)[h.Containerd]+"[metrics]\n  address = \"x\"\n")
	uninstall(t, h)
	if got, want := tree(t, h)[h.Containerd], "version = 2\n# theirs[metrics]\n  address = \"x\"\n"; got == want {
		t.Errorf("two lines became one: %q", got)
	}
}

// TestRefused: bad input changes nothing.
func TestRefused(t *testing.T) {
	damaged, nameless := bundleOf(t, "1.0"), bundleOf(t, "../x")
	write(t, filepath.Join(damaged, "bin/ccv2"), "other")
	for _, c := range []struct{ name, containerd, bundle, says string }{
		{"what does not parse", "version = = 2", bundleOf(t, "1.0"), "nothing was changed"},
		{"version 1", "[plugins]\n", bundleOf(t, "1.0"), "format version 1, known are 2 to 4"},
		{"a later version", "version = 9\n", bundleOf(t, "1.0"), "format version 9"},
		{"another's runtime", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.ccv2]\nruntime_type = \"x\"\n", bundleOf(t, "1.0"), `has a runtime "ccv2" that`},
		{"a damaged bundle", "version = 2\n", damaged, "bin/ccv2 is not what was packed"},
		{"no version", "version = 2\n", nameless, `version "../x"`},
		{"no bundle", "version = 2\n", t.TempDir(), "no unpacked bundle"},
	} {
		h := hostWith(t, c.containerd)
		before := tree(t, h)
		if err := Install(h, c.bundle, false, io.Discard); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", c.name, diff)
		}
	}
	h := hostWith(t, "-")
	write(t, h.at("/usr/local/bin/containerd-shim-cc-v2"), "theirs")
	if err := Install(h, bundleOf(t, "1.0"), false, io.Discard); err == nil || !strings.Contains(err.Error(), "no link of ccv2's") {
		t.Error(err)
	}
	if err := Uninstall(h, false, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "nothing is installed") {
		t.Error(err)
	}
}

// TestDryRun says what a run would do, and does nothing.
func TestDryRun(t *testing.T) {
	h := hostWith(t, "version = 2\n[metrics]\n")
	before := tree(t, h)
	var out bytes.Buffer
	if err := Install(h, bundleOf(t, "1.0"), true, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+++ /opt/ccv2/1.0 (", "+++ /usr/local/bin/ccv2 -> ", "--- /etc/containerd/config.toml\n", "@@ line 3 @@\n+# BEGIN ccv2", "+  runtime_type"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	install(t, h, bundleOf(t, "1.0"))
	before = tree(t, h)
	if err := Uninstall(h, true, &out, nil); err != nil || !strings.Contains(out.String(), "--- the block of ccv2 in /etc/containerd/config.toml\n") {
		t.Errorf("%v: %s", err, out.String())
	}
	if diff := cmp.Diff(before, tree(t, h)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}
