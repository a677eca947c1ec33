//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// disk makes a loop device of 8 MiB.
func disk(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, []byte("of the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 8<<20); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(command(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() {
		command(t, "losetup", "--detach", path)
		if out := command(t, "losetup", "--list", "--noheadings", "--output", "BACK-FILE"); strings.Contains(out, image) {
			t.Errorf("somebody has %s open still:\n%s", path, out) // it goes with its last user
		}
	})
	return path
}

// withDisk gives a container a block device, with a name, an owner and a mode of its own.
func withDisk(t *testing.T, path, access string) func(s *specs.Spec) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
			Path: "/dev/deep/disk", Type: "b", Major: major, Minor: minor, FileMode: new(os.FileMode(0o640)), UID: new(uint32(3)), GID: new(uint32(4)),
		})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: access})
	}
}

// TestDisk: a block device of the host is the container's to read and write, and to have a
// file system on.
func TestDisk(t *testing.T) {
	want := `block special file 640 3 4
8388608
of the host
in a file
can be written
`
	besideRunc(t, func(t *testing.T, runtime, id string) {
		path := disk(t)
		administrator := func(s *specs.Spec) {
			for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Permitted, &s.Process.Capabilities.Effective} {
				*set = append(*set, "CAP_SYS_ADMIN")
			}
		}
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{"sh", "-e", "-c", `
			stat -c '%F %a %u %g' /dev/deep/disk
			blockdev --getsize64 /dev/deep/disk
			head -n 1 /dev/deep/disk
			mke2fs /dev/deep/disk >/tmp/out 2>&1 || cat /tmp/out
			mkdir /m && mount -t ext4 /dev/deep/disk /m
			echo in a file >/m/file && umount /m && mount -t ext4 /dev/deep/disk /m && cat /m/file && umount /m
			printf 'of the container\n' | dd of=/dev/deep/disk conv=notrunc 2>/dev/null && echo can be written`},
			edited(withDisk(t, path, "rwm"), administrator))
		status := shared.Finish(t, task)
		if diff := cmp.Diff(want, out.String()); diff != "" || status != 0 {
			t.Errorf("status %d (-want +got):\n%s", status, diff)
		}
		if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "of the container\n") {
			t.Errorf("the host reads %.20q, %v", data, err)
		}
	})
}

// TestDiskReadOnly: who may only read gets a disk that cannot be written, whatever its own
// kernel says of that.
func TestDiskReadOnly(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		path := disk(t)
		var out harness.Buffer
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: &out}, []string{
			"sh", "-c", "exec 2>&1; head -n 1 /dev/deep/disk; echo x >/dev/deep/disk", // no rule of the container's lets it
		}, edited(withDisk(t, path, "r")))
		if status := shared.Finish(t, task); status == 0 || !strings.HasPrefix(out.String(), "of the host\n") || !strings.Contains(out.String(), "not permitted") {
			t.Errorf("status %d, %q", status, out.String())
		}
	})
	t.Run("guest", func(t *testing.T) {
		// With a rule about all devices it is the VM that does not let it write.
		everything := func(s *specs.Spec) {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
		}
		path := disk(t)
		var out harness.Buffer
		task := shared.RunningOn(t, harness.Runtime, "diskreadonly-guest", harness.Streams{Stdout: &out, Stderr: &out}, []string{
			"sh", "-c", "exec 2>&1; blockdev --getro /dev/deep/disk; blockdev --setrw /dev/deep/disk; printf x | dd of=/dev/deep/disk conv=notrunc,fsync 2>&1 | grep -c .",
		}, edited(withDisk(t, path, "r"), everything))
		shared.Finish(t, task)
		if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "of the host\n") || !strings.HasPrefix(out.String(), "1\n") {
			t.Errorf("the host reads %.20q, %v; output %q", data, err, out.String())
		}
	})
}

// TestDiskCounters: what a guest does with a disk is counted by its id.
func TestDiskCounters(t *testing.T) {
	shared.Watch(t)
	path := disk(t)
	var out harness.Buffer
	task := shared.RunningOn(t, harness.Runtime, "diskcounters", harness.Streams{Stdout: &out}, []string{
		"sh", "-c", "dd if=/dev/deep/disk of=/dev/null bs=1M 2>/dev/null; dd if=/dev/zero of=/dev/deep/disk bs=64k count=4 conv=notrunc,fsync 2>/dev/null; echo done; sleep 1000",
	}, edited(withDisk(t, path, "rwm")))
	harness.Until(t, "reads and writes", func() bool { return out.String() != "" })
	var stats struct {
		Disks []struct {
			ID           string
			ReadBytes    uint64 `json:"read_bytes"`
			WrittenBytes uint64 `json:"written_bytes"`
			Flushes      uint64
			Failed       uint64
		}
	}
	shared.CCV2JSON(t, &stats, "stats", "diskcounters")
	if d := stats.Disks; len(d) != 1 || d[0].ID == "" || d[0].ReadBytes < 8<<20 || d[0].WrittenBytes < 256<<10 || d[0].Flushes == 0 || d[0].Failed != 0 {
		t.Errorf("got %+v", d)
	}
	t.Logf("\n%s", shared.CCV2OK(t, "stats", "diskcounters"))
	shared.KillTask(t, task)
}

// TestDiskRefused: what cannot be had is named, and nothing stays of the attempt.
func TestDiskRefused(t *testing.T) {
	shared.Watch(t)
	path := disk(t)
	taken := func(s *specs.Spec) { // by a device that is no disk of the host
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/other", Type: "b", Major: 4095, Minor: 1})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: new(int64(4095)), Access: "rwm"})
	}
	container := shared.ContainerOn(t, harness.Runtime, "diskrefused", []string{"true"}, edited(withDisk(t, path, "rwm"), taken))
	if _, err := shared.NewTask(t, container, harness.Streams{}); err == nil || !strings.Contains(err.Error(), "block device /dev/other 4095:1: the host has no such disk") {
		t.Errorf("want an error about the other device: %v", err)
	}
}

// disk9P: what can be plugged into a machine does not depend on the share.
func disk9P(t *testing.T, machine string) {
	shared.Watch(t)
	path := disk(t)
	var out harness.Buffer
	container := shared.ContainerOn(t, harness.Runtime, "disk9p", []string{"head", "-n", "1", "/dev/deep/disk"}, edited(withDisk(t, path, "rwm")))
	task, err := shared.NewTask(t, container, harness.Streams{Stdout: &out, Stderr: &out})
	if machine == "microvm" {
		if err == nil || !strings.Contains(err.Error(), "block device /dev/deep/disk") || !strings.Contains(err.Error(), "has no bus to plug into") {
			t.Errorf("want an error that says why not: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(shared.Context()); err != nil {
		t.Fatal(err)
	}
	if status := shared.Finish(t, task); status != 0 || out.String() != "of the host\n" {
		t.Errorf("status %d, %q", status, out.String())
	}
}
