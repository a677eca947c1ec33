//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// diskImage makes a raw image of 8 MiB.
func diskImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("of the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// inVM runs a script of a shell in the VM; $disk is the node of a disk, "" when there is none.
func inVM(t *testing.T, disk, script string) string {
	t.Helper()
	find := `for d in /sys/block/vd*; do [ "$(cat $d/serial 2>/dev/null)" = ` + disk + ` ] && disk=/dev/${d##*/}; done; `
	return shared.CCV2OK(t, "exec", "--copy", shared.Busybox, "withdisk", filepath.Base(shared.Busybox), "sh", "-c", find+script)
}

// TestOperateDisk: an image and a device of the host are in the VM until they are detached, and what is in use is refused.
func TestOperateDisk(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "withdisk", harness.Streams{}, []string{"sleep", "1000"})
	image := diskImage(t)
	id := strings.TrimSpace(shared.CCV2OK(t, "disk", "attach", "withdisk", image))
	harness.Until(t, "disk in the VM", func() bool { return inVM(t, id, `head -n 1 $disk </dev/null`) == "of the host\n" })
	inVM(t, id, `printf 'of the guest\n' | dd of=$disk conv=notrunc,fsync 2>/dev/null`)
	if text, err := os.ReadFile(image); err != nil || !strings.HasPrefix(string(text), "of the guest\n") {
		t.Errorf("the host reads %.20q, %v", text, err)
	}
	if text := shared.CCV2OK(t, "info", "withdisk"); !strings.Contains(text, "attached    "+id+" is "+image) {
		t.Errorf("info: %s", text)
	}
	operateDiskRefused(t, image)
	shared.CCV2OK(t, "disk", "detach", "withdisk", id)
	if got := inVM(t, id, `echo "disk=$disk"`); got != "disk=\n" {
		t.Errorf("it is there still: %s", got)
	}
	id = strings.TrimSpace(shared.CCV2OK(t, "disk", "attach", "--read-only", "withdisk", image))
	harness.Until(t, "disk that cannot be written", func() bool { return inVM(t, id, `cat /sys/block/${disk#/dev/}/ro`) == "1\n" })
	shared.CCV2OK(t, "disk", "detach", "withdisk", image)
	device := disk(t)
	shared.CCV2OK(t, "disk", "attach", "withdisk", device)
	if text := shared.CCV2OK(t, "events", "withdisk"); strings.Count(text, " attach ") != 3 || strings.Count(text, " detach ") != 2 {
		t.Errorf("events: %s", text)
	}
	shared.KillTask(t, task) // with the device attached, which disk wants free
}

// operateDiskRefused wants what is in use, or not there, to be refused.
func operateDiskRefused(t *testing.T, image string) {
	t.Helper()
	device := disk(t)
	other := shared.RunningOn(t, harness.Runtime, "otherdisk", harness.Streams{}, []string{"sleep", "1000"}, edited(withDisk(t, device, "rwm")))
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"attach", "withdisk", image}, 1, "the vm has it already, as disk"},
		{[]string{"attach", "otherdisk", image}, 1, "another vm or program uses it"},
		{[]string{"attach", "otherdisk", device}, 1, "a container of the pod has it"},
		{[]string{"attach", "withdisk", "/no/such"}, 1, "no such file"},
		{[]string{"attach", "no-such", image}, 3, "there is no sandbox"},
		{[]string{"detach", "withdisk", "disk99"}, 1, "none of this name was attached"},
		{[]string{"detach", "otherdisk", "disk1"}, 1, "those of containers go with them"},
		{[]string{"attach", "withdisk"}, 2, "attach|detach ID|POD"},
		{[]string{"eject", "withdisk", image}, 2, "attach|detach ID|POD"},
	} {
		if r := shared.CCV2(t, append([]string{"disk"}, tt.args...)...); r.Code != tt.code || !strings.Contains(r.Stderr, tt.want) {
			t.Errorf("%q: exit code %d: %s, want %d: %q", tt.args, r.Code, r.Stderr, tt.code, tt.want)
		}
	}
	shared.KillTask(t, other)
}

// TestOperateDiskHung: a VM that hangs holds up nobody, and nothing stays of an attempt; a shim that is killed leaves nothing.
func TestOperateDiskHung(t *testing.T) {
	shared.Watch(t)
	events := shared.Record(t)
	shared.Running(t, "hungdisk", harness.Streams{}, []string{"sleep", "1000"})
	image, device := diskImage(t), disk(t)
	for _, tt := range []struct {
		role harness.Role
		code int
		want string
	}{
		{harness.QEMU, 1, "deadline exceeded"},
		{harness.Shim, 5, "stopped by a signal"},
	} {
		p := shared.AwaitProcess(t, tt.role, "hungdisk")
		p.Signal(t, unix.SIGSTOP)
		if r := shared.CCV2(t, "disk", "attach", "hungdisk", image); r.Code != tt.code || !strings.Contains(r.Stderr, tt.want) {
			t.Errorf("%s: exit code %d: %s", tt.role, r.Code, r.Stderr)
		}
		p.Signal(t, unix.SIGCONT)
	}
	harness.Until(t, "attach when it goes on", func() bool { return shared.CCV2(t, "disk", "attach", "hungdisk", image).Code == 0 })
	shared.CCV2OK(t, "disk", "attach", "hungdisk", device)
	shared.AwaitProcess(t, harness.Shim, "hungdisk").Signal(t, unix.SIGKILL)
	events.Await(t, "exit", "hungdisk", "")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	harness.Until(t, "unlocked image", func() bool {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}) == nil
	})
}
