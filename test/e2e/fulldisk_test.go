//go:build e2e

package e2e_test

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestFullDisk: who writes to a root file system that is full is told, in large pieces and in
// small ones, and who removes a file has its room at once.
func TestFullDisk(t *testing.T) {
	const script = `
b=/bin/busybox
for i in 1 2 3 4 5; do
	$b dd if=/dev/zero of=/f bs=64k count=1000 2>/dev/null; echo "large pieces: $?"
	echo x >/g; echo "one more: $?"
	$b rm /f; echo x >/g; echo "with room: $?"; $b rm /g
done 2>/dev/null
$b dd if=/dev/zero of=/f bs=1000 count=100000 2>/dev/null; echo "small pieces: $?"; $b rm /f
line=$($b printf '%0500d' 0)
while echo "a line of a log $line"; do :; done >/f 2>/dev/null; echo "the log ends"
$b rm /f; echo x >/g; $b cat /g`
	besideRunc(t, func(t *testing.T, runtime, id string) {
		root := t.TempDir()
		if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=8m,mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", rootWith(t, "link", "/nowhere")+"/.", root).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var out harness.Buffer
		container := rooted(t, runtime, id, root, []string{"/bin/busybox", "sh", "-c", script}, bind(t.TempDir(), "/var"))
		task, err := shared.NewTask(t, container, harness.Streams{Stdout: &out, Stderr: &out})
		if err == nil {
			err = task.Start(shared.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		status := shared.Finish(t, task)
		want := strings.Repeat("large pieces: 1\none more: 1\nwith room: 0\n", 5) + "small pieces: 1\nthe log ends\nx\n"
		if out.String() != want || status != 0 {
			t.Errorf("status %d, says:\n%s\nwant:\n%s", status, out.String(), want)
		}
	})
}
