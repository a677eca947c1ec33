package placeholder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

// tree is a copy of what is mounted at a directory.
func tree(tb testing.TB, dir string) *os.File {
	tb.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		tb.Fatal(err)
	}
	return os.NewFile(uintptr(fd), dir)
}

// files makes files below a directory, with their paths as what is in them.
func files(tb testing.TB, paths ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, path := range paths {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func newPlaceholder(tb testing.TB, c Container) *Placeholder {
	tb.Helper()
	needRoot(tb)
	p, err := New(nil, c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// process is a process of a placeholder.
type process struct {
	PID     int
	Signals chan syscall.Signal
}

func start(tb testing.TB, p *Placeholder, name string, id Identity) process {
	tb.Helper()
	signals := make(chan syscall.Signal, 10)
	pid, err := p.Start(name, id, func(s syscall.Signal) { signals <- s })
	if err != nil {
		tb.Fatal(err)
	}
	return process{pid, signals}
}

func proc(pid int, file string) string { return filepath.Join("/proc", fmt.Sprint(pid), file) }

// awaitName waits until the program has its name, after its first steps.
func awaitName(tb testing.TB, pid int, name string) {
	tb.Helper()
	for tb.Context().Err() == nil {
		got, err := os.ReadFile(proc(pid, "comm"))
		if err != nil {
			tb.Fatal(err)
		}
		if strings.TrimSuffix(string(got), "\n") == name {
			return
		}
	}
}

// TestView of a container: its files, and nothing else of the host's.
func TestView(t *testing.T) {
	root := files(t, "etc/issue", "data/below", "tmp/hidden", "link/x", "file")
	if err := os.Remove(filepath.Join(root, "link/x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../tmp/ccv2-away", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	volume := files(t, "kept")
	p := newPlaceholder(t, Container{
		Root: tree(t, root), Hostname: "inner",
		Mounts: []Mount{
			{Destination: "/data", Tree: tree(t, volume)},
			{Destination: "/tmp"},
			{Destination: "/link", Tree: tree(t, volume)},    // leads nowhere below the root
			{Destination: "/missing", Tree: tree(t, volume)}, // the same
			{Destination: "/file", Tree: tree(t, volume)},    // a directory on a file
		},
	})
	process := start(t, p, "", Identity{Name: "init", Args: []string{"/bin/init", "-x"}, UID: 1234, GID: 56})
	awaitName(t, process.PID, "init")
	inside := func(path string) string { return filepath.Join(proc(process.PID, "root"), path) }
	for path, want := range map[string]string{"etc/issue": "issue", "data/kept": "kept", "file": "file"} {
		if got, err := os.ReadFile(inside(path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if err := os.WriteFile(inside("data/new"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(volume, "new")); err != nil {
		t.Errorf("what was written is not in the volume: %v", err)
	}
	if err := os.WriteFile(inside("tmp/new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write where only the guest has files: %v, want that it is read-only", err)
	}
	if _, err := os.Stat(inside("tmp/hidden")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the container does not see: %v", err)
	}
	table, err := os.ReadFile(proc(process.PID, "mountinfo"))
	if err != nil || len(bytes.Split(bytes.TrimSpace(table), []byte("\n"))) != 3 {
		t.Errorf("mounts of the container, want the root, /data and /tmp (%v):\n%s", err, table)
	}
	wantNamespaces(t, process.PID)
	wantStatus(t, process.PID, "Uid:\t1234\t", "Gid:\t56\t", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Groups:\t \n", "Threads:\t1\n")
	if got, _ := os.ReadFile(proc(process.PID, "cmdline")); string(got) != "/bin/init\x00-x\x00" {
		t.Errorf("arguments %q", got)
	}
	if out, err := exec.CommandContext(t.Context(), "nsenter", "-t", fmt.Sprint(process.PID), "-u", "hostname").CombinedOutput(); err != nil || string(out) != "inner\n" {
		t.Errorf("host name %q, %v", out, err)
	}
}

// wantNamespaces checks that the mount, ipc and uts namespaces are not the host's.
func wantNamespaces(tb testing.TB, pid int) {
	tb.Helper()
	for _, kind := range []string{"mnt", "ipc", "uts"} {
		theirs, err := os.Readlink(proc(pid, "ns/"+kind))
		ours, ourErr := os.Readlink("/proc/self/ns/" + kind)
		if err != nil || ourErr != nil || theirs == ours {
			tb.Errorf("%s namespace %s, ours %s (%v, %v)", kind, theirs, ours, err, ourErr)
		}
	}
}

func wantStatus(tb testing.TB, pid int, lines ...string) {
	tb.Helper()
	status, err := os.ReadFile(proc(pid, "status"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, want := range lines {
		if !strings.Contains(string(status), want) {
			tb.Errorf("status lacks %q:\n%s", want, status)
		}
	}
}

// TestNewNetwork: a placeholder is in the network namespace that it was made in, unless
// it is to have one of its own.
func TestNewNetwork(t *testing.T) {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []bool{false, true} {
		process := start(t, newPlaceholder(t, Container{NewNetwork: own}), "x", Identity{Name: "one"})
		theirs, err := os.Readlink(proc(process.PID, "ns/net"))
		if err != nil || (theirs != ours) != own {
			t.Errorf("own: %v; %s, ours %s (%v)", own, theirs, ours, err)
		}
	}
}

// TestSignals: what others send to the pid is meant for the process in the guest.
func TestSignals(t *testing.T) {
	p := newPlaceholder(t, Container{})
	process := start(t, p, "x", Identity{Name: "one"})
	awaitName(t, process.PID, "one")
	for _, want := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, 64} {
		awaitWaiting(t, process.PID)
		if err := syscall.Kill(process.PID, want); err != nil {
			t.Fatal(err)
		}
		if got := <-process.Signals; got != want {
			t.Errorf("signal %d, want %d", got, want)
		}
	}
	if err := syscall.Kill(process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-process.Signals; got != syscall.SIGKILL {
		t.Errorf("%v, want SIGKILL", got)
	}
	p.End("x")
	p.End("x")
	own := start(t, p, "x", Identity{Name: "two"}) // the name is free again
	if _, err := p.Start("x", Identity{Name: "three"}, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second process of that name: %v", err)
	}
	p.End("x")
	if len(own.Signals) != 0 {
		t.Errorf("an end of our own is reported as %v", <-own.Signals)
	}
}

// TestOthersHaveTheSocket: who has got hold of the end that a process writes to can
// send what is no signal, and keeps nobody from ending the process.
func TestOthersHaveTheSocket(t *testing.T) {
	p := newPlaceholder(t, Container{})
	process := start(t, p, "", Identity{Name: "one"})
	awaitName(t, process.PID, "one")
	pidfd, err := unix.PidfdOpen(process.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := unix.PidfdGetfd(pidfd, signalFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(unix.Close(stolen), unix.Close(pidfd)) }()
	for _, b := range []byte{0, 200, 15} {
		if _, err := unix.Write(stolen, []byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-process.Signals; got != syscall.SIGTERM {
		t.Errorf("signal %d, want the one that there is", got)
	}
	p.End("")
	p.Close()
}

// awaitWaiting waits until a process that has its name sleeps, which it does only to
// wait for signals.
func awaitWaiting(tb testing.TB, pid int) {
	tb.Helper()
	for tb.Context().Err() == nil {
		status, err := os.ReadFile(proc(pid, "status"))
		if err != nil {
			tb.Fatal(err)
		}
		if strings.Contains(string(status), "State:\tS") {
			return
		}
	}
}

// TestMirror has a process for each one that is asked for, the same one as long as it
// is, and as many as a host can bear.
func TestMirror(t *testing.T) {
	p := newPlaceholder(t, Container{})
	one := Mirrored{GuestPID: 7, Identity: Identity{Name: "one", Args: []string{"one"}}}
	two := Mirrored{GuestPID: 8, Identity: Identity{Name: "two", Args: []string{"two"}}}
	first := p.Mirror([]Mirrored{one, two})
	if first[0] == 0 || first[1] == 0 || first[0] == first[1] {
		t.Fatalf("pids %v", first)
	}
	other := one
	other.Args = []string{"another"}
	second := p.Mirror([]Mirrored{two, other})
	if second[0] != first[1] || second[1] == first[0] {
		t.Errorf("pids %v, then %v in the other order", first, second)
	}
	if err := syscall.Kill(first[0], 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process that is gone: %v", err)
	}
	var all []Mirrored
	for i := range mirrorLimit + 3 {
		all = append(all, Mirrored{GuestPID: 100 + i, Identity: Identity{Name: "many"}})
	}
	pids := p.Mirror(all)
	if pids[mirrorLimit-1] == 0 || pids[mirrorLimit] != 0 {
		t.Errorf("pids around the limit: %v", pids[mirrorLimit-1:])
	}
	if p.Mirror(nil); len(p.live) != 0 {
		t.Errorf("%d processes are left", len(p.live))
	}
	same := make([]Mirrored, 100)
	if pids := p.Mirror(same); pids[0] == 0 || pids[1] != 0 || len(p.live) != 1 {
		t.Errorf("%d processes for one that was said a hundred times: %v", len(p.live), pids[:3])
	}
	p.room = func() (int, error) { return spareThreads + 2, nil }
	if pids := p.Mirror(all[:9]); pids[1] == 0 || len(p.live) > 3 {
		t.Errorf("%d processes where there is room for two more", len(p.live))
	}
	p.Close()
	if got := p.Mirror(all[:1]); got[0] != 0 {
		t.Errorf("a pid %d after the end", got[0])
	}
}

// TestClose leaves no process and no mount.
func TestClose(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	p := newPlaceholder(t, Container{Root: tree(t, root)})
	process := start(t, p, "x", Identity{Name: "one"})
	p.Close()
	p.Close()
	if err := syscall.Kill(process.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process: %v", err)
	}
	if _, err := p.Start("late", Identity{Name: "late"}, nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("a start after the end: %v", err)
	}
	if err := unix.Unmount(root, 0); err != nil {
		t.Error(err)
	}
}

// BenchmarkNew is what a container costs, BenchmarkStart an exec.
func BenchmarkNew(b *testing.B) {
	needRoot(b)
	root := b.TempDir()
	for b.Loop() {
		p, err := New(nil, Container{Root: tree(b, root), Mounts: []Mount{{Destination: "/"}}})
		if err != nil {
			b.Fatal(err)
		}
		start(b, p, "", Identity{Name: "init"})
		p.Close()
	}
}

func BenchmarkStart(b *testing.B) {
	p := newPlaceholder(b, Container{})
	for b.Loop() {
		start(b, p, "exec", Identity{Name: "exec"})
		p.End("exec")
	}
}

// TestStrings of a guest may be anything.
func TestStrings(t *testing.T) {
	p := newPlaceholder(t, Container{})
	long := strings.Repeat("x", argsLimit)
	process := start(t, p, "", Identity{Name: "a-name-that-is-too-long\x00", Args: []string{"a\x00b", long, "more"}})
	awaitName(t, process.PID, "a-name-that-is-")
	got, err := os.ReadFile(proc(process.PID, "cmdline"))
	if want := "a\x00" + long[:argsLimit-2] + "\x00"; err != nil || string(got) != want {
		t.Errorf("%d bytes of arguments, want %d (%v)", len(got), len(want), err)
	}
}

// TestPlace: a process that cannot be where it belongs does not stay.
func TestPlace(t *testing.T) {
	var placed int
	var refuse error
	p := newPlaceholder(t, Container{Place: func(pid int) error {
		placed = pid
		return refuse
	}})
	pid, err := p.Start("a", Identity{Name: "a"}, func(syscall.Signal) {})
	if err != nil || pid != placed {
		t.Errorf("process %d, %v, %d was placed", pid, err, placed)
	}
	refuse = errors.New("no group")
	if _, err := p.Start("b", Identity{Name: "b"}, func(s syscall.Signal) { t.Errorf("%v", s) }); !errors.Is(err, refuse) {
		t.Errorf("error %v", err)
	}
	if err := unix.Kill(placed, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d: %v", placed, err)
	}
}
