// Package install_test tries hack/install.sh in directories of its own.
package install_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

// built is a build directory with files of the right names.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{
		"bin/containerd-shim-ccv2", "bin/ccv2", "bin/ccv2-agent", "guest/vmlinux", "guest/initrd.img", "guest/manifest.json",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text := name
		if name == "bin/ccv2" { // which writes the manual pages
			text = "#!/bin/sh\n[ \"$1\" = man ] && mkdir -p \"$2\" && echo page >\"$2/ccv2.1\"\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// install runs the script and returns what it printed.
func install(t *testing.T, build, dest, prefix string, kernel ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "hack/install.sh", append([]string{build, dest, prefix}, kernel...)...)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// files lists what is below dir; links with their targets.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		entry := strings.TrimPrefix(path, dir)
		if d.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			entry += " -> " + target
		}
		list = append(list, entry)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestInstall(t *testing.T) {
	dest := t.TempDir()
	if out, err := install(t, built(t), dest, "/opt/x"); err != nil || !strings.Contains(out, "names the host's") {
		t.Fatal(err, out)
	}
	want := []string{
		"/etc/ccv2/config.toml",
		"/opt/x/bin/ccv2",
		"/opt/x/bin/ccv2-agent",
		"/opt/x/bin/containerd-shim-cc-v2 -> containerd-shim-ccv2",
		"/opt/x/bin/containerd-shim-ccv2",
		"/opt/x/share/ccv2/initrd.img",
		"/opt/x/share/ccv2/manifest.json",
		"/opt/x/share/ccv2/vmlinux",
		"/opt/x/share/man/man1/ccv2.1",
	}
	if diff := cmp.Diff(want, files(t, dest)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	got, _ := config.Parse("installed", read(t, dest+"/etc/ccv2/config.toml"), nil) // its files are not on this host
	wantConfig := config.Defaults()
	wantConfig.Guest.Kernel, wantConfig.Guest.Image = "/opt/x/share/ccv2/vmlinux", "/opt/x/share/ccv2/initrd.img"
	wantConfig.Share.VirtioFSD = got.Share.VirtioFSD // as the host has it
	if diff := cmp.Diff(wantConfig, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestInstallFileServer installs the one that was built, and the configuration names it.
func TestInstallFileServer(t *testing.T) {
	build, dest := built(t), t.TempDir()
	server := filepath.Join(build, "virtiofsd", "virtiofsd")
	if err := os.MkdirAll(filepath.Dir(server), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(server, []byte("server"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := install(t, build, dest, "/opt/x"); err != nil || strings.Contains(out, "was not built") {
		t.Fatal(err, out)
	}
	const path = "/opt/x/libexec/ccv2/virtiofsd"
	if read(t, dest+path) != "server" {
		t.Error("the server was not installed")
	}
	if got, _ := config.Parse("installed", read(t, dest+"/etc/ccv2/config.toml"), nil); got.Share.VirtioFSD != path {
		t.Errorf("the configuration names %s", got.Share.VirtioFSD)
	}
}

// TestInstallKernel: the image that is installed has the kernel that was asked for.
func TestInstallKernel(t *testing.T) {
	build, dest := built(t), t.TempDir()
	for name, text := range map[string]string{
		"bin/ccv2":                         "#!/bin/sh\n[ \"$1\" = man ] || cp \"$4\" \"${10}/vmlinux\" # image build --kernel FILE … --out DIRECTORY\n",
		"crun-static/crun":                 "crun",
		"kernel-source/boot/vmlinuz-1-own": "own",
	} {
		path := filepath.Join(build, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := install(t, build, dest, "/usr", "source"); err != nil {
		t.Fatal(err, out)
	}
	if got := read(t, dest+"/usr/share/ccv2/vmlinux"); got != "own" {
		t.Errorf("the kernel is %q", got)
	}
	if out, err := install(t, build, dest, "/usr", "debian"); err == nil || !strings.Contains(out, "no kernel below") {
		t.Error("a kernel that is not there:", err, out)
	}
}

func TestInstallKeepsConfiguration(t *testing.T) {
	build, dest := built(t), t.TempDir()
	path := dest + "/etc/ccv2/config.toml"
	for range 2 { // the second finds what the first has written
		if out, err := install(t, build, dest, "/usr"); err != nil {
			t.Fatal(err, out)
		}
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("an equal configuration was put beside the old one")
	}
	const mine = "vm.vcpus = 2\n"
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := install(t, build, dest, "/usr")
	if err != nil || !strings.Contains(out, "kept "+path) {
		t.Errorf("%v: %s", err, out)
	}
	if got := read(t, path); got != mine {
		t.Errorf("the configuration was changed to:\n%s", got)
	}
	if !strings.Contains(read(t, path+".new"), "/usr/share/ccv2/vmlinux") {
		t.Error("the new configuration is not beside the old one")
	}
}

func TestInstallRefuses(t *testing.T) {
	build := built(t)
	if out, err := install(t, build, t.TempDir(), "relative"); err == nil || !strings.Contains(out, "absolute") {
		t.Errorf("%v: %s", err, out)
	}
	if err := os.Remove(build + "/guest/vmlinux"); err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	if out, err := install(t, build, dest, "/usr"); err == nil || !strings.Contains(out, "run make build guest first") {
		t.Errorf("%v: %s", err, out)
	}
	if left := files(t, dest); len(left) != 0 {
		t.Errorf("half installed: %q", left)
	}
}
