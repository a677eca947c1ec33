package exposure_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// view notes what is asked of it.
type view struct {
	asked  []string
	broken string // what fails
}

func (v *view) ask(what string) error {
	v.asked = append(v.asked, what)
	if v.broken != "" && strings.Contains(what, v.broken) {
		return errors.New("no room")
	}
	return nil
}

func (v *view) Rootfs(all []mount.Mount) error { return v.ask(fmt.Sprint("rootfs of ", len(all))) }
func (v *view) RootfsDir(path string) error    { return v.ask("rootfs " + path) }
func (v *view) RootfsPath() string             { return "c/rootfs" }
func (v *view) Close() error                   { return nil }

func (v *view) Disks(_ context.Context, spec *specs.Spec) ([]hyperstart.Disk, error) {
	return []hyperstart.Disk{{Major: 7, Serial: fmt.Sprint(len(spec.Mounts))}}, v.ask("disks")
}

func (v *view) Bind(b share.Bind) (path string, guard bool, err error) {
	return fmt.Sprint(".volumes/", len(v.asked)), strings.Contains(b.Source, "shared"), v.ask("bind " + b.Source)
}

func (v *view) Tree(path string, readOnly bool) (*os.File, error) {
	if err := v.ask(fmt.Sprintf("tree %s %v", path, readOnly)); err != nil {
		return nil, err
	}
	return os.Open(os.DevNull)
}

func newBundle() *bundle.Bundle {
	bind := func(source, destination, option string) specs.Mount {
		return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"rbind", option}}
	}
	return &bundle.Bundle{Dir: "/b", Spec: &specs.Spec{
		Hostname: "h", Root: &specs.Root{Path: "rootfs", Readonly: true}, Linux: &specs.Linux{},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			bind("/host/data", "/data", "rw"), bind("/host/config", "/config", "ro"), bind("/host/shared", "/shared", "rw"),
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Hooks: &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/host/tool"}, {Path: "/host/tool"}}},
	}}
}

// TestExpose has each thing once, and the same for the guest and for the host.
func TestExpose(t *testing.T) {
	v := &view{}
	e, err := exposure.Expose(t.Context(), v, newBundle(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.OnHost()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := []string{
		"rootfs /b/rootfs", "bind /host/data", "bind /host/config", "bind /host/shared", "disks", "bind /host/tool",
		"tree c/rootfs true", "tree .volumes/1 false", "tree .volumes/2 true", "tree .volumes/3 true",
	}
	if diff := cmp.Diff(want, v.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	binds := []client.Bind{
		{Source: ".volumes/1", Destination: "/data"}, {Source: ".volumes/2", Destination: "/config", ReadOnly: true}, {Source: ".volumes/3", Destination: "/shared"},
	}
	if diff := cmp.Diff(binds, e.Binds()); diff != "" {
		t.Errorf("binds (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]hyperstart.Disk{{Major: 7, Serial: "5"}}, e.Disks()); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	if got := e.Programs()["/host/tool"]; !strings.HasSuffix(got, "/.volumes/5") {
		t.Errorf("program of the hook: %q", got)
	}
	var onHost []string
	for _, m := range c.Mounts {
		onHost = append(onHost, fmt.Sprint(m.Destination, " ", m.Tree != nil))
	}
	if diff := cmp.Diff([]string{"/proc false", "/data true", "/config true", "/shared true", "/tmp false"}, onHost); diff != "" || c.Hostname != "h" {
		t.Errorf("on the host, name %q (-want +got):\n%s", c.Hostname, diff)
	}
}

// TestPipes: what needs a process of the host at its other end is refused, unless a container
// of the pod can be that.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "pods/uid/volumes")
	if err := os.MkdirAll(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, volume} {
		l, err := net.Listen("unix", filepath.Join(path, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := unix.Mkfifo(filepath.Join(path, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("socket", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		filepath.Join(dir, "socket"): "Unix socket", filepath.Join(dir, "link"): "Unix socket", filepath.Join(dir, "pipe"): "named pipe",
		filepath.Join(volume, "socket"): "", filepath.Join(volume, "pipe"): "", dir: "", "/dev/null": "",
	} {
		b := newBundle()
		b.Spec.Annotations = map[string]string{"io.kubernetes.cri.sandbox-uid": "uid"}
		b.Spec.Mounts = []specs.Mount{{Type: "bind", Source: source, Destination: "/there"}}
		_, err := exposure.Expose(t.Context(), &view{}, b, nil, false)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", source, err)
		case want != "" && (!errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "mount /there: "+source+" is a "+want)):
			t.Errorf("%s: %v, want an error about a %s", source, err, want)
		}
	}
}

// TestFailures name what was being exposed.
func TestFailures(t *testing.T) {
	for broken, want := range map[string]string{
		"rootfs": "root file system: no room", "config": "mount /config: no room", "disks": "no room", "tool": "createContainer hook /host/tool: no room",
		"tree .volumes/2": "no room",
	} {
		e, err := exposure.Expose(t.Context(), &view{broken: broken}, newBundle(), nil, false)
		if err == nil {
			_, err = e.OnHost()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", broken, err, want)
		}
	}
}
