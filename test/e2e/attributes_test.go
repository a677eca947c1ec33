//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// sameAsRunc runs a command in a VM and with runc, and wants one output of both, with
// these texts in it. before runs before each, to give both the same volumes.
func sameAsRunc(t *testing.T, args, wants []string, before func(t *testing.T), opts ...oci.SpecOpts) {
	t.Helper()
	shared.Watch(t)
	seen := make(map[string]string)
	id := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	for runtime, id := range map[string]string{harness.Runc: id + "-runc", harness.Runtime: id} {
		if before != nil {
			before(t)
		}
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, args, opts...)
		if status := shared.Finish(t, task); status != 0 {
			t.Errorf("%s: status %d", id, status)
		}
		seen[runtime] = out.String()
	}
	if got, want := seen[harness.Runtime], seen[harness.Runc]; got != want {
		t.Errorf("in the VM:\n%s\nwith runc:\n%s", got, want)
	}
	for _, want := range wants {
		if !strings.Contains(seen[harness.Runc], want) {
			t.Errorf("with runc there is no %q in:\n%s", want, seen[harness.Runc])
		}
	}
}

// testProgram is a directory with one of testdata.
func testProgram(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	builtProgram(t, dir, name)
	return dir
}

// userland are the programs of the host for a container.
func userland() []specs.Mount {
	var mounts []specs.Mount
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/sbin"} {
		if target, err := filepath.EvalSymlinks(dir); err == nil {
			mounts = append(mounts, bind(target, dir, "ro"))
		}
	}
	return mounts
}

// empty returns an empty directory, and what makes it empty again.
func empty(t *testing.T) (dir string, again func(*testing.T)) {
	dir = t.TempDir()
	return dir, func(t *testing.T) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if err == nil {
				err = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAttributes: extended attributes, capabilities of programs, and who takes the
// set-user-id bit of a file, in the root file system and in a volume.
func TestAttributes(t *testing.T) {
	dir, again := empty(t)
	mounts := []specs.Mount{bind(dir, "/v"), bind(testProgram(t, "attrs"), "/bin/attrs.d", "ro")}
	sameAsRunc(t, []string{"/bin/attrs.d/attrs", "/tmp", "/v"}, []string{
		"v set user.a.a of file ok", "v set trusted.a.a of file EPERM", "v user.size3000 ok 3000", "CapEff:\t0000000000002000",
		"v 4777 truncating by another ok 100777", "v 4777 truncating by root ok 104777", "v 4777 write by another ok 100777",
	}, again, oci.WithMounts(mounts), oci.WithNewPrivileges)
}

// TestAttributesFromOutside: a capability that one of the host gives a file, of which
// the guest has seen that it has none, is soon seen, and taken by who writes the file.
func TestAttributesFromOutside(t *testing.T) {
	dir, volume := testProgram(t, "attrs"), t.TempDir()
	besideRunc(t, func(t *testing.T, runtime, id string) {
		for file, host := range map[string]string{"/tmp/file": "/proc/%d/root/tmp/file", "/v/file": filepath.Join(volume, "file")} {
			var out harness.Buffer
			task := shared.RunningOn(t, runtime, id+filepath.Base(filepath.Dir(file)), harness.Streams{Stdout: &out, Stderr: &out},
				[]string{"/bin/attrs.d/attrs", "wait", file, "security.capability"}, oci.WithMounts([]specs.Mount{bind(dir, "/bin/attrs.d", "ro"), bind(volume, "/v")}))
			harness.Until(t, "the program to see that there is none", func() bool { return strings.Contains(out.String(), "get at first ENODATA\n") })
			if strings.Contains(host, "%d") {
				host = fmt.Sprintf(host, task.Pid())
			}
			// CAP_NET_RAW, effective, in revision 2.
			capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			if err := unix.Setxattr(host, "security.capability", capability, 0); err != nil {
				t.Fatal(err)
			}
			status := shared.Finish(t, task)
			if want := "file get at first ENODATA\nfile get ok\nfile write ok\nfile get after that ENODATA\n"; status != 0 || out.String() != want {
				t.Errorf("%s: status %d, got:\n%s\nwant:\n%s", file, status, out.String(), want)
			}
			if strings.HasPrefix(file, "/v") && slices.Contains(attributes(t, host), "security.capability") {
				t.Errorf("%s: on the host it still has a capability", file)
			}
		}
	})
}

// ownKernel is whether the guest has the kernel that the project builds, with its patches.
func ownKernel(t *testing.T) bool {
	t.Helper()
	paths, err := harness.Find()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(paths.Kernel), "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ KernelVersion string }
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	return strings.HasSuffix(manifest.KernelVersion, "-ccv2")
}

// TestAccessLists: those of files are kept, obeyed and inherited: in the root file system, and
// where the guest has the project's own kernel in volumes.
func TestAccessLists(t *testing.T) {
	dirs := []string{"/tmp"}
	if ownKernel(t) {
		dirs = append(dirs, "/v")
	}
	volume, again := empty(t)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			name := filepath.Base(dir)
			sameAsRunc(t, []string{"/bin/attrs.d/attrs", "lists", dir}, []string{
				name + " give 6 ok\n" + name + " keep ok true\n" + name + " mode ok 100770\n" + name + " write by another ok\n", name + " default inherited ok true",
			}, again, oci.WithMounts([]specs.Mount{bind(testProgram(t, "attrs"), "/bin/attrs.d", "ro"), bind(volume, "/v")}))
		})
	}
}

// TestAttributeTools does the same with the programs that people use: a package whose
// script gives a program a capability, copies and archives that keep attributes.
func TestAttributeTools(t *testing.T) {
	for _, tool := range []string{"setcap", "dpkg-deb", "dpkg", "tar", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatal(err)
		}
	}
	dir, again := empty(t)
	const script = `set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /v/pkg/DEBIAN /v/pkg/opt/x /var/lib/dpkg /var/log /tmp
printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' > /v/pkg/DEBIAN/control
printf '#!/bin/sh\nset -e\nsetcap cap_net_raw+ep /opt/x/cat\ngetcap /opt/x/cat\n' > /v/pkg/DEBIAN/postinst
chmod 755 /v/pkg/DEBIAN/postinst
cp /usr/bin/cat /v/pkg/opt/x/cat
dpkg-deb --build /v/pkg /v/x.deb > /dev/null
mkdir -p /adm/updates /adm/info && touch /adm/status /adm/available
dpkg --admindir=/adm -i /v/x.deb 2>&1 | grep -v -i warning
dpkg --admindir=/adm -s x | grep Status
getcap /opt/x/cat
cp -a /opt/x/cat /v/copy && getcap /v/copy
cp -a /v/copy /back && getcap /back
tar -C /opt -c --xattrs --xattrs-include='*' x | tar -C /v -x --xattrs --xattrs-include='*' && getcap /v/x/cat
setpriv --reuid 1000 --regid 1000 --clear-groups /opt/x/cat /proc/self/status | grep -E 'Uid|CapEff'
setcap -r /v/copy && getcap /v/copy
echo end`
	sameAsRunc(t, []string{"/usr/bin/dash", "-c", script}, []string{"Status: install ok installed", "/v/x/cat cap_net_raw=ep", "CapEff:\t0000000000002000", "end"},
		again, oci.WithMounts(append(userland(), bind(dir, "/v"))), oci.WithNewPrivileges)
}

// TestTrustedAttributes: a container engine in a privileged container has an overlay
// with a volume as its upper layer, whose trusted attributes are none of the host's.
func TestTrustedAttributes(t *testing.T) {
	dir, again := empty(t)
	const script = `set -e
cd /v; mkdir l u w m l/d; echo low > l/f; ln -s f l/s; echo x > l/d/x; mknod l/n c 1 3; mkfifo l/p
mnt() { mount -t overlay overlay -o lowerdir=/v/l,upperdir=/v/u,workdir=/v/w m; }
mnt; cd m; echo up >> f; cat f; mv s s2; readlink s2; rm -rf d; mkdir d; chown -h 5 s2; chown 5 n p; stat -c '%n %u %F' s2 n p f; rm n; cd ..
umount m; mnt; ls m m/d; cat m/f; umount m`
	sameAsRunc(t, []string{"sh", "-c", script}, []string{"low\nup\n", "s2 5 symbolic link"}, again, oci.WithMounts([]specs.Mount{bind(dir, "/v")}), oci.WithPrivileged)

	// As the host's kernel sees it, last with the VM or with runc: look at the VM's.
	again(t)
	task := shared.Running(t, "trusted", harness.Streams{Stderr: os.Stderr}, []string{"sh", "-c", script}, oci.WithMounts([]specs.Mount{bind(dir, "/v")}), oci.WithPrivileged)
	if status := shared.Finish(t, task); status != 0 {
		t.Fatalf("status %d", status)
	}
	names := attributes(t, filepath.Join(dir, "u", "d"))
	if len(names) == 0 {
		t.Error("the directory that hides another has no attribute")
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "user.virtiofs.trusted.") {
			t.Errorf("a guest has set %s on the host", name)
		}
	}
}

// TestLabels: what security modules of the host read is the host's alone.
func TestLabels(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	err := os.WriteFile(file, nil, 0o600)
	for _, name := range []string{"security.selinux", "security.hosts"} {
		if err == nil {
			err = unix.Setxattr(file, name, []byte("host"), 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var out harness.Buffer
	task := shared.Running(t, "labels", harness.Streams{Stdout: &out, Stderr: &out}, []string{"/bin/attrs.d/attrs", "label", "/v/file"},
		oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "attrs"), "/bin/attrs.d", "ro")}), oci.WithPrivileged)
	status := shared.Finish(t, task)
	want := "file set security.selinux ENOTSUP\nfile get security.selinux ENOTSUP \nfile set security.SMACK64EXEC ENOTSUP\nfile get security.SMACK64EXEC ENOTSUP \n" +
		"file set security.other EPERM\nfile get security.other ENODATA \nfile list ok [security.hosts]\n"
	if got := out.String(); status != 0 || got != want {
		t.Errorf("status %d, in the guest:\n%s\nwant:\n%s", status, got, want)
	}
	if names := attributes(t, file); len(names) != 2 {
		t.Errorf("on the host: %q", names)
	}
}

// TestRefusedAttributes: what a VM cannot keep in a volume is an error, not forgotten.
// An access list that is kept and not obeyed would be worse than none. Flags that keep a file
// from being removed are the host's alone, and so is the project that its space counts for.
func TestRefusedAttributes(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	var out harness.Buffer
	task := shared.Running(t, "refused", harness.Streams{Stdout: &out, Stderr: &out}, []string{"/bin/attrs.d/attrs", "refused", "/v"},
		oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "attrs"), "/bin/attrs.d", "ro")}), oci.WithPrivileged)
	status := shared.Finish(t, task)
	lists := "ENOTSUP"
	if ownKernel(t) {
		lists = "ok"
	}
	want := fmt.Sprintln("v access list", lists) + fmt.Sprintln("v default access list", lists) + "v immutable EPERM\nv append-only EPERM\nv project EPERM\n"
	if got := out.String(); got != want || status != 0 {
		t.Errorf("status %d, got:\n%s\nwant:\n%s", status, got, want)
	}
}

// attributes lists those of a file.
func attributes(t *testing.T, path string) []string {
	t.Helper()
	b := make([]byte, 1<<12)
	n, err := unix.Listxattr(path, b)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.Trim(string(b[:n]), "\x00"), "\x00")
}
