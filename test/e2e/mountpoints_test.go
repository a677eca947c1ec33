//go:build e2e

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestMountPoints: a volume is where it was asked for, also where a specification or the
// guest has something of its own.
func TestMountPoints(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the volume\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for i, place := range []string{"/dev/shm", "/dev/mqueue", "/dev/pts", "/dev/new", "/run", "/tmp", "/etc", "/sys/class", "/sys/fs/cgroup", "/a/new/place"} {
			got := mounted(t, runtime, fmt.Sprint(id, "-dir", i), bind(dir, place), "cat "+place+"/file && echo new >"+place+"/new && rm "+place+"/new")
			if got != "of the volume\n" {
				t.Errorf("%s: %q", place, got)
			}
		}
		for i, place := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc/cpuinfo", "/dev/file", "/run/secrets/a/b"} {
			if got := mounted(t, runtime, fmt.Sprint(id, "-file", i), bind(filepath.Join(dir, "file"), place), "cat "+place); got != "of the volume\n" {
				t.Errorf("%s: %q", place, got)
			}
		}
	})
}

// TestMemoryAtShm: /dev/shm has the size of what is mounted there, a volume in memory or
// a tmpfs with a size.
func TestMemoryAtShm(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		volume := t.TempDir()
		if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=100m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(volume, 0); err != nil {
				t.Error(err)
			}
		})
		const look = "head -c 80m /dev/zero >/dev/shm/large && df -k /dev/shm | tail -n 1 | awk '{ print $2 }'"
		if got := mounted(t, runtime, id+"-volume", bind(volume, "/dev/shm"), look); got != "102400\n" {
			t.Errorf("a volume: %q", got)
		}
		if info, err := os.Stat(filepath.Join(volume, "large")); err != nil || info.Size() != 80<<20 {
			t.Errorf("in the volume: %v, %v", info, err)
		}
		tmpfs := specs.Mount{Type: "tmpfs", Source: "shm", Destination: "/dev/shm", Options: []string{"size=200m"}}
		if got := mounted(t, runtime, id+"-tmpfs", tmpfs, look); got != "204800\n" {
			t.Errorf("a tmpfs: %q", got)
		}
	})
}

// mounted is what a script says in a container with a mount.
func mounted(t *testing.T, runtime, id string, m specs.Mount, script string) string {
	t.Helper()
	var out harness.Buffer
	task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", script},
		oci.WithoutMounts(m.Destination), oci.WithMounts([]specs.Mount{m}))
	shared.Finish(t, task)
	return out.String()
}

// TestDanglingMountPoints: what a symlink of the image leads to is made, as with runc.
func TestDanglingMountPoints(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the volume\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for i, tt := range []struct {
			link, target string // in the image
			place        string
			file         bool
			leadsTo      string
		}{
			{"data", "/var/lib/data", "/data", false, "/var/lib/data/file"},
			{"data", "/var/lib/data", "/data/below", false, "/var/lib/data/below/file"},
			{"var/relative", "../nowhere/x", "/var/relative", false, "/nowhere/x/file"},
			{"up", "../../../outside", "/up", false, "/outside/file"},
			{"etc/config", "/usr/share/config", "/etc/config", true, "/usr/share/config"},
			{"etc/config", "relative-config", "/etc/config", true, "/etc/relative-config"},
			{"etc/dir", "../elsewhere", "/etc/dir/config", true, "/elsewhere/config"},
		} {
			root := rootWith(t, tt.link, tt.target)
			source := dir
			if tt.file {
				source = filepath.Join(dir, "file")
			}
			var out harness.Buffer
			container := rooted(t, runtime, fmt.Sprint(id, i), root, []string{"/bin/busybox", "cat", tt.leadsTo}, bind(source, tt.place))
			task, err := shared.NewTask(t, container, harness.Streams{Stdout: &out, Stderr: &out})
			if err == nil {
				err = task.Start(shared.Context())
			}
			if err != nil {
				t.Errorf("%s with %s -> %s: %v", tt.place, tt.link, tt.target, err)
				continue
			}
			if shared.Finish(t, task); out.String() != "of the volume\n" {
				t.Errorf("%s with %s -> %s: %q", tt.place, tt.link, tt.target, out.String())
			}
		}
	})
}

// TestMountPointLoop: a symlink that leads to itself is an error.
func TestMountPointLoop(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		root := rootWith(t, "loop", "/loop")
		container := rooted(t, runtime, id, root, []string{"/bin/busybox", "true"}, bind(t.TempDir(), "/loop"))
		if _, err := shared.NewTask(t, container, harness.Streams{}); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("%v", err)
		}
	})
}

// rooted makes a container of a directory, with a mount.
func rooted(t *testing.T, runtime, id, root string, args []string, m specs.Mount) client.Container {
	t.Helper()
	container, err := shared.Client.NewContainer(shared.Context(), id, client.WithRuntime(runtime, nil),
		client.WithNewSpec(oci.WithProcessArgs(args...), oci.WithRootFSPath(root), oci.WithMounts([]specs.Mount{m})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shared.Remove(t, id) })
	return container
}

// rootWith makes a root file system with busybox and a symlink.
func rootWith(t *testing.T, link, target string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(shared.Busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755)
	}
	if err == nil {
		err = os.Symlink(target, filepath.Join(root, link))
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestRefusedMountPoints: nothing takes the place of what programs trust to be the kernel's.
func TestRefusedMountPoints(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for i, m := range []specs.Mount{
			bind(dir, "/proc"), bind(dir, "/proc/sys"), bind(dir, "/proc/1"), bind(file, "/proc/version"), bind(file, "/dev/null"), bind("/dev/zero", "/dev/null"),
			{Type: "tmpfs", Source: "tmpfs", Destination: "/proc/acpi"},
		} {
			container := shared.ContainerOn(t, runtime, fmt.Sprint(id, i), []string{"true"}, oci.WithMounts([]specs.Mount{m}))
			if _, err := shared.NewTask(t, container, harness.Streams{}); err == nil {
				t.Errorf("%s at %s was mounted", m.Source, m.Destination)
			}
		}
	})
}

// TestPipesOfTheHost: what a process of the host would have to be at the other end of is
// refused, with the reason. With runc it works.
func TestPipesOfTheHost(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	socket, pipe := filepath.Join(dir, "socket"), filepath.Join(dir, "pipe")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := unix.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{socket: "is a Unix socket", pipe: "is a named pipe"} {
		container := shared.Container(t, filepath.Base(source), []string{"true"}, oci.WithMounts([]specs.Mount{bind(source, "/there")}))
		_, err := shared.NewTask(t, container, harness.Streams{})
		if err == nil || !strings.Contains(err.Error(), source+" "+want) || !strings.Contains(err.Error(), "host") {
			t.Errorf("%s: %v", source, err)
		}
	}
	// In a directory they can be seen, and nobody is there.
	got := mounted(t, harness.Runtime, "pipes", bind(dir, "/there"), "[ -S /there/socket ] && [ -p /there/pipe ] && echo seen")
	if got != "seen\n" {
		t.Errorf("in a directory: %q", got)
	}
}

// TestIDAgain: a container of a pod can have the id of one that has just ended. The
// hook takes longer than the guest believes what it knows of a directory.
func TestIDAgain(t *testing.T) {
	shared.Watch(t)
	of := func(kind string) oci.SpecOpts {
		return oci.WithAnnotations(map[string]string{"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "again-pod"})
	}
	pod := shared.Running(t, "again-pod", harness.Streams{}, []string{"sleep", "1000"}, of("sandbox"))
	for i := range 5 {
		var out harness.Buffer
		hooks := specs.Hooks{CreateContainer: static("sleep", fmt.Sprint(i%2*2))}
		task := shared.Running(t, "again", harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-c", "cat /mark 2>/dev/null; touch /mark; ls -d /bin /proc/self"},
			of("container"), withHooks(hooks))
		if status := shared.Finish(t, task); status != 0 || out.String() != "/bin\n/proc/self\n" {
			t.Errorf("%d: status %d, %q", i, status, out.String())
		}
		shared.Remove(t, "again")
	}
	shared.KillTask(t, pod)
}
