package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// vm notes what is plugged into it.
type vm struct {
	mu     sync.Mutex // guards what follows
	disks  []hypervisor.BlockDevice
	broken error // of Plug
	gone   error // of Unplug

	plugging chan struct{} // if not nil Plug sends to it, and waits for the end of its context
}

func (v *vm) Plug(ctx context.Context, d hypervisor.Device) error {
	if v.plugging != nil {
		v.plugging <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	disk, ok := d.(hypervisor.BlockDevice)
	if !ok {
		return errors.New("not a disk")
	}
	mode, err := unix.FcntlInt(disk.File.Fd(), unix.F_GETFL, 0)
	if err != nil || (mode&unix.O_ACCMODE == unix.O_RDONLY) != disk.ReadOnly {
		return errors.Join(err, errors.New("its file is open for something else"))
	}
	if v.broken == nil {
		v.disks = append(v.disks, disk)
	}
	return v.broken
}

func (v *vm) Unplug(_ context.Context, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.disks, func(d hypervisor.BlockDevice) bool { return d.ID == id })
	if i < 0 {
		return errdefs.ErrNotFound
	}
	if v.gone == nil {
		v.disks = slices.Delete(v.disks, i, i+1)
	}
	return v.gone
}

// ids are the disks that are plugged.
func (v *vm) ids() (ids []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range v.disks {
		ids = append(ids, d.ID)
	}
	return ids
}

// loop makes a loop device of one MiB.
func loop(t *testing.T, options ...string) (path string, n number) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", append(options, "--find", "--show", image)...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	path = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", path, err, out)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return path, number{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
}

// with is a specification with a block device and the right to use it.
func with(n number, access string) *specs.Spec {
	major, minor := int64(n.major), int64(n.minor)
	return &specs.Spec{Linux: &specs.Linux{
		Devices: []specs.LinuxDevice{{Path: "/dev/x", Type: "b", Major: major, Minor: minor}},
		Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"}, {Allow: true, Type: "b", Major: &major, Minor: &minor, Access: access},
		}},
	}}
}

// TestGiven: a device is given by its number, with a right that names it.
func TestGiven(t *testing.T) {
	device := func(path, kind string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor}
	}
	rule := func(allow bool, kind string, access string, numbers ...int64) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		for i, into := range []**int64{&r.Major, &r.Minor} {
			if i < len(numbers) {
				*into = &numbers[i]
			}
		}
		return r
	}
	disk := device("/dev/x", "b", 8, 1)
	path, n := loop(t)
	host := device(path, "b", int64(n.major), int64(n.minor)) // as all nodes of the host are listed
	written, read := []string{"/dev/x 8:1 rw"}, []string{"/dev/x 8:1 r"}
	for name, test := range map[string]struct {
		devices []specs.LinuxDevice
		rules   []specs.LinuxDeviceCgroup
		want    []string
	}{
		"named":                        {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "rwm", 8, 1)}, written},
		"all of a driver":              {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "rw", 8)}, written},
		"without a word of the access": {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "", 8, 1)}, written},
		"for reading":                  {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "rm", 8, 1)}, read},
		"then not for writing":         {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "rwm", 8), rule(false, "b", "w", 8, 1)}, read},
		"to be made alone":             {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "m", 8, 1)}, nil},
		"another one":                  {[]specs.LinuxDevice{disk}, []specs.LinuxDeviceCgroup{rule(true, "b", "rwm", 8, 2), rule(true, "c", "rwm", 8, 1)}, nil},
		"privileged": {
			[]specs.LinuxDevice{host, device("/dev/x", "b", host.Major, host.Minor)},
			[]specs.LinuxDeviceCgroup{rule(true, "", "rwm")},
			[]string{fmt.Sprintf("/dev/x %d:%d rw", n.major, n.minor)},
		},
		"privileged, and the host's list is old": { // one has gone, the number of the other is another device's now
			[]specs.LinuxDevice{device("/dev/dm-77", "b", 253, 77), device("/dev/mapper/gone", "b", host.Major, host.Minor)}, []specs.LinuxDeviceCgroup{rule(true, "", "rwm")}, nil,
		},
		"of characters": {[]specs.LinuxDevice{device("/dev/x", "c", 8, 1)}, []specs.LinuxDeviceCgroup{rule(true, "c", "rwm", 8, 1)}, nil},
		"twice": {
			[]specs.LinuxDevice{disk, device("/dev/y", "b", 8, 1), device("/dev/z", "b", 8, 2)},
			[]specs.LinuxDeviceCgroup{rule(true, "b", "rwm", 8)},
			[]string{"/dev/x 8:1 rw", "/dev/z 8:2 rw"},
		},
	} {
		var got []string
		for _, d := range given(&specs.Spec{Linux: &specs.Linux{Devices: test.devices, Resources: &specs.LinuxResources{Devices: test.rules}}}) {
			access := "rw"
			if d.readOnly {
				access = "r"
			}
			got = append(got, d.String()+" "+access)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestDisks: a device is plugged once for all containers that may do the same with it, and
// until the last one is gone.
func TestDisks(t *testing.T) {
	_, n := loop(t)
	v, table := &vm{}, NewTable(time.Minute)
	want := func(what string, ids ...string) {
		t.Helper()
		if diff := cmp.Diff(ids, v.ids()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
	}
	attach := func(access string) (*View, []hyperstart.Disk) {
		t.Helper()
		view := table.View(v)
		disks, err := view.Disks(t.Context(), with(n, access))
		if err != nil {
			t.Fatal(err)
		}
		return view, disks
	}
	reader, disks := attach("r")
	if diff := cmp.Diff([]hyperstart.Disk{{Major: int64(n.major), Minor: int64(n.minor), Serial: "disk1"}}, disks); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	want("one that reads", "disk1")
	writer, disks := attach("rwm")
	want("one that writes", "disk1", "disk2")
	other, same := attach("rwm")
	late, read := attach("r")
	want("more of them", "disk1", "disk2")
	if !cmp.Equal(disks, same) || !cmp.Equal(disks, read) {
		t.Errorf("disks %v, %v and %v", disks, same, read)
	}
	for _, view := range []*View{reader, writer, writer, other} {
		if err := view.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want("one is left", "disk2")
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	want("none is left")
	again, _ := attach("rw")
	want("again", "disk3")
	v.gone = errdefs.ErrUnavailable // the VM is
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestFailures: nothing stays of a disk that could not be plugged, and the next container
// tries anew.
func TestFailures(t *testing.T) {
	_, n := loop(t)
	v, table := &vm{broken: errors.New("no slot")}, NewTable(time.Minute)
	view := table.View(v)
	if _, err := view.Disks(t.Context(), with(n, "rw")); err == nil || !strings.Contains(err.Error(), "block device /dev/x ") || !strings.HasSuffix(err.Error(), "no slot") {
		t.Errorf("%v", err)
	}
	if err := view.Close(); err != nil || len(table.disks) > 0 {
		t.Errorf("%v, left: %v", err, table.disks)
	}
	v.broken = nil
	view = table.View(v)
	if _, err := view.Disks(t.Context(), with(n, "rw")); err != nil {
		t.Error(err)
	}
	v.gone = errors.New("it stays")
	if err := view.Close(); err == nil {
		t.Error("nobody is told that a disk has stayed")
	}
	view = table.View(v)
	if _, err := view.Disks(t.Context(), with(number{4095, 1}, "rw")); !errdefs.IsNotFound(err) {
		t.Errorf("a disk that is not there: %v", err)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
}

// TestReadOnly: a disk that cannot be written can be read.
func TestReadOnly(t *testing.T) {
	_, n := loop(t, "--read-only")
	v := &vm{}
	view := NewTable(time.Minute).View(v)
	if _, err := view.Disks(t.Context(), with(n, "rw")); err != nil || !v.disks[0].ReadOnly {
		t.Errorf("%v, plugged: %v", err, v.disks)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
}

// TestStays: a disk that the guest does not release is unplugged later, with the next
// container that comes or goes.
func TestStays(t *testing.T) {
	_, n := loop(t)
	v, table := &vm{}, NewTable(time.Minute)
	attach := func() *View {
		t.Helper()
		view := table.View(v)
		if _, err := view.Disks(t.Context(), with(n, "rw")); err != nil {
			t.Fatal(err)
		}
		return view
	}
	stays := errors.New("the guest does not release it")
	for _, next := range []struct {
		what string
		does func() error
		want []string
	}{
		{"comes", func() error { attach(); return nil }, []string{"disk2"}},
		{"goes", func() error { return table.View(v).Close() }, nil},
	} {
		v.gone = stays
		view := attach()
		if err := view.Close(); !errors.Is(err, stays) {
			t.Errorf("%s: the one that has it: %v", next.what, err)
		}
		if err := table.View(v).Close(); err != nil { // the guest still keeps it
			t.Errorf("%s: %v", next.what, err)
		}
		v.gone = nil
		if err := next.does(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(next.want, v.ids()); diff != "" {
			t.Errorf("one that %s (-want +got):\n%s", next.what, diff)
		}
		v.disks, table.disks = nil, map[key]*disk{}
	}
}

// TestWaits: who waits for a disk that another container has begun to plug gets it,
// though the other one's client has gone meanwhile.
func TestWaits(t *testing.T) {
	_, n := loop(t)
	synctest.Test(t, func(t *testing.T) {
		v, table := &vm{plugging: make(chan struct{})}, NewTable(time.Minute)
		first, second := table.View(v), table.View(v)
		attach := func(ctx context.Context, view *View) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := view.Disks(ctx, with(n, "rw"))
				done <- err
			}()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		one := attach(ctx, first)
		<-v.plugging
		other := attach(t.Context(), second)
		synctest.Wait() // until that one waits for the first one
		v.plugging = nil
		cancel()
		if err := <-one; !errors.Is(err, context.Canceled) {
			t.Errorf("the first one: %v", err)
		}
		if err := <-other; err != nil {
			t.Errorf("the second one: %v", err)
		}
		if err := errors.Join(first.Close(), second.Close()); err != nil || len(v.ids()) > 0 || len(table.disks) > 0 {
			t.Errorf("%v, plugged: %v, left: %v", err, v.ids(), table.disks)
		}
	})
}

// TestNode: where the kernel's node is not to be seen, one is made, which nobody else sees
// and which can be opened whatever the host's mounts allow.
func TestNode(t *testing.T) {
	path, n := loop(t)
	got, remove, err := node(n, "/dev")
	if err != nil || got != path || remove() != nil {
		t.Fatalf("%s, %v; want %s", got, err, path)
	}
	dir := t.TempDir()
	other := filepath.Join(dir, filepath.Base(path)) // with a name that says nothing
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var removes []func() error
	for range 2 { // two containers at once
		got, remove, err = node(n, dir)
		if err != nil || got == other || !isNode(got, n) {
			t.Fatalf("%s, %v", got, err)
		}
		f, err := os.OpenFile(got, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		removes = append(removes, remove)
	}
	for _, remove := range removes {
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
}
