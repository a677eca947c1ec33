//go:build e2e

package e2e_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// guest9P is the guest whose kernel has 9p, beside that of the settings.
func guest9P(t *testing.T, s *harness.Settings) (kernel, image string) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(filepath.Dir(s.Kernel)), "guest-9p")
	kernel, image = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "initrd.img")
	for _, path := range []string{kernel, image} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("no guest with 9p, run `make guest-9p`: %v", err)
		}
	}
	return kernel, image
}

// configure9P makes the shim use the share that QEMU serves by itself, on a
// guest whose kernel has 9p.
func configure9P(t *testing.T, machine, dialect string) {
	t.Helper()
	shared.Configure(t, func(s *harness.Settings) {
		kernel, image := guest9P(t, s)
		s.Raw = fmt.Sprintf(`state_dir = %q
[hypervisor]
path = %q
machine = %q
[guest]
kernel = %q
image = %q
dialect = %q
boot_timeout = %q
[template]
enabled = false
[share]
type = "9p"
virtiofsd = "/nonexistent/virtiofsd"
`, shared.StateDir(), s.QEMU, machine, kernel, image, dialect, s.BootTimeout)
	})
}

// TestShare9P runs containers whose files come through 9p, on both machines.
// On a microvm nothing can be plugged: all devices are there from the start.
func TestShare9P(t *testing.T) {
	for _, tt := range []struct{ machine, dialect string }{{"q35", "auto"}, {"microvm", "ccv2"}} {
		t.Run(tt.machine, func(t *testing.T) {
			configure9P(t, tt.machine, tt.dialect)
			t.Run("Run", run9P)
			t.Run("Container", func(t *testing.T) { container9P(t, tt.machine) })
			t.Run("Disk", func(t *testing.T) { disk9P(t, tt.machine) })
			t.Run("User", user9P)
			t.Run("Crash", crash9P)
		})
	}
}

func run9P(t *testing.T) {
	shared.Watch(t)
	want := harness.Result{Stdout: "to stdout\n", Stderr: "to stderr\n", Code: 42}
	got := shared.Ctr(t, "run", "--rm", harness.ImageName, "run9p", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 42")
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// container9P tests what a share is for in one container.
func container9P(t *testing.T, machine string) {
	shared.Watch(t)
	dir := t.TempDir()
	data := make([]byte, 3<<20+1) // more than a few messages, and not a round number of them
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"file": []byte("of the host\n"), "read-only": []byte("untouched\n"), "data": data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	builtProgram(t, dir, "mmap")
	bind := func(name, dest, mode string) specs.Mount {
		return specs.Mount{Type: "bind", Source: filepath.Join(dir, name), Destination: dest, Options: []string{"rbind", mode}}
	}
	task := shared.Running(t, "files9p", harness.Streams{}, []string{"sleep", "3600"}, oci.WithMounts([]specs.Mount{
		bind("file", "/etc/one", "rw"), bind("read-only", "/etc/two", "ro"), bind("", "/dir", "rw"),
	}))
	qemu := strings.Join(shared.AwaitProcess(t, harness.QEMU, "files9p").Args, " ")
	if !strings.Contains(qemu, "-machine "+machine) || !strings.Contains(qemu, "virtio-9p-") {
		t.Errorf("qemu runs as %s", qemu)
	}
	if found := shared.Find(harness.VirtioFSD, "files9p"); len(found) != 0 {
		t.Errorf("virtiofsd runs: %v", found)
	}
	files9P(t, task, dir, data)
	stdio9P(t, task)
	if status := shared.KillTask(t, task); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
}

func files9P(t *testing.T, task client.Task, dir string, data []byte) {
	t.Helper()
	for i, tt := range []struct{ script, want string }{
		{"cat /etc/one /etc/two", "of the host\nuntouched\n"},
		{"echo of the guest > /etc/one; cat /dir/file", "of the guest\n"},
		{"touch /etc/two 2>/dev/null || cat /etc/two", "untouched\n"},
		{"stat -c '%a %u %g' /etc/one", "640 0 0\n"},
		{"echo x > /f && chown 12:34 /f && chmod 4751 /f && stat -c '%a %u %g %s' /f", "4751 12 34 2\n"},
		{"mkdir -p /a/b && echo y > /a/b/c && ln /a/b/c /a/h && ln -s b/c /a/s && mv /a/h /a/m && cat /a/m /a/s && rm -r /a && ls -d /a || echo gone", "y\ny\ngone\n"},
		// A file that is unlinked while it is open keeps its content.
		{"echo kept > /u; exec 3</u; rm /u; cat <&3; ls /u 2>/dev/null || echo gone", "kept\ngone\n"},
		{"echo one > /l; echo two >> /l; sync; cp /l /m; cat /m", "one\ntwo\n"},
		{"cp /dir/data /copy && cmp /copy /dir/data && cp /copy /dir/back && echo same", "same\n"},
		{"/dir/mmap /dir/mapped && tail -c 4096 /dir/mapped | head -n 1", "mapped\n"},
		{"mount | grep ' / ' | cut -d ' ' -f 5", "9p\n"},
	} {
		out, status := shared.Output(t, task, fmt.Sprintf("files%d", i), "sh", "-c", tt.script)
		if out != tt.want {
			t.Errorf("%s: got %q (exit status %d), want %q", tt.script, out, status, tt.want)
		}
	}
	back, err := os.ReadFile(filepath.Join(dir, "back"))
	if err != nil || string(back) != string(data) {
		t.Errorf("file that the container wrote: %d bytes, want %d: %v", len(back), len(data), err)
	}
}

func stdio9P(t *testing.T, task client.Task) {
	t.Helper()
	input := strings.Repeat("0123456789abcde\n", 1<<14)
	var out harness.Buffer
	p := shared.Exec(t, task, "cat", harness.Streams{Stdin: strings.NewReader(input), Stdout: &out, Stderr: os.Stderr}, "cat")
	if status := shared.Finish(t, p); status != 0 || out.String() != input {
		t.Errorf("cat: exit status %d, %d bytes, want %d", status, len(out.String()), len(input))
	}
	if _, status := shared.Output(t, task, "seven", "sh", "-c", "exit 7"); status != 7 {
		t.Errorf("exit status %d, want 7", status)
	}
}

// user9P wants what a user makes to be the user's.
func user9P(t *testing.T) {
	shared.Watch(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	task := shared.Running(t, "user9p", harness.Streams{}, []string{"sleep", "3600"}, oci.WithUIDGID(12, 34),
		oci.WithMounts([]specs.Mount{{Type: "bind", Source: dir, Destination: "/dir", Options: []string{"rbind"}}}))
	out, status := shared.Output(t, task, "make", "sh", "-c",
		"cd /dir && touch file && mkdir dir && ln -s file link && stat -c %u:%g file dir link && touch /etc/no 2>/dev/null || echo refused")
	if want := "12:34\n12:34\n12:34\nrefused\n"; out != want || status != 0 {
		t.Errorf("got %q (exit status %d), want %q", out, status, want)
	}
	shared.KillTask(t, task)
}

// crash9P kills QEMU, which takes the share with it.
func crash9P(t *testing.T) {
	shared.Watch(t)
	events := shared.Record(t)
	task := shared.Running(t, "crash9p", harness.Streams{}, []string{"sleep", "3600"})
	shared.AwaitProcess(t, harness.QEMU, "crash9p").Signal(t, unix.SIGKILL)
	if e := events.Await(t, "exit", "crash9p", ""); e.Status == 0 {
		t.Errorf("exit event %s", e)
	}
	if status := shared.Finish(t, task); status == 0 {
		t.Error("exit status 0 after a crash")
	}
}
