package livevolume_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/livevolume"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest notes what it is asked.
type guest struct {
	asked chan string // volume and data

	mu     sync.Mutex
	errors []error // of the next calls
}

func newGuest(errs ...error) *guest { return &guest{asked: make(chan string, 100), errors: errs} }

func (g *guest) RefreshVolume(_ context.Context, volume, data string) error {
	g.asked <- volume + " " + data
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.errors) == 0 {
		return nil
	}
	err := g.errors[0]
	g.errors = g.errors[1:]
	return err
}

// want waits for a call.
func (g *guest) want(t *testing.T, call string) {
	t.Helper()
	select {
	case got := <-g.asked:
		if got != call {
			t.Fatalf("the guest is asked for %q, not %q", got, call)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the guest is not asked for %q", call)
	}
}

// wantNothing checks that no call has come before the mark of another volume does.
func (g *guest) wantNothing(t *testing.T, mark string) {
	t.Helper()
	publish(t, mark, "..mark", "")
	g.want(t, "mark ..mark")
	if len(g.asked) > 0 {
		t.Errorf("the guest is asked for %q", <-g.asked)
	}
}

// pod is the uid in the paths of volumes.
const pod = "0123"

// volume makes a volume as a kubelet does.
func volume(t *testing.T, kind, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pods", pod, "volumes", "kubernetes.io~"+kind, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	publish(t, dir, "..0", "text")
	return dir
}

func publish(t *testing.T, dir, data, text string) {
	t.Helper()
	err := errors.Join(
		os.Mkdir(filepath.Join(dir, data), 0o755),
		os.WriteFile(filepath.Join(dir, data, "key"), []byte(text), 0o644),
		os.Symlink(data, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, g *guest) *livevolume.Watch {
	w := livevolume.New(t.Context(), g)
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// bind binds a volume that is exposed at a path, and reports whether as a live one.
func bind(t *testing.T, w *livevolume.Watch, b share.Bind, path string) bool {
	t.Helper()
	live := false
	if _, _, err := w.Bind(b, func(b share.Bind) (string, bool, error) {
		live = b.Live != ""
		return path, false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return live
}

func readOnly(source string) share.Bind {
	return share.Bind{Source: source, Access: share.WriteBelow, Pod: pod}
}

func TestWatch(t *testing.T) {
	for _, kind := range []string{"configmap", "secret", "projected", "downward-api"} {
		g := newGuest()
		w := start(t, g)
		dir := volume(t, kind, "v")
		if !bind(t, w, readOnly(dir), ".live/0") {
			t.Fatalf("%s: not live", kind)
		}
		publish(t, dir, "..1", "new")
		g.want(t, ".live/0 ..1")
		publish(t, dir, "..2", "newer")
		g.want(t, ".live/0 ..2")
	}
}

// TestShared: two containers have a volume until the second one forgets it.
func TestShared(t *testing.T) {
	g := newGuest()
	w := start(t, g)
	dir, mark := volume(t, "configmap", "v"), volume(t, "secret", "mark")
	bind(t, w, readOnly(mark), "mark")
	bind(t, w, readOnly(dir), ".live/0")
	bind(t, w, readOnly(dir), ".live/0")
	w.Forget(".live/0")
	publish(t, dir, "..1", "new")
	g.want(t, ".live/0 ..1")
	w.Forget(".live/0")
	w.Forget(".live/0") // nothing is left to forget
	publish(t, dir, "..2", "newer")
	g.wantNothing(t, mark)
}

// TestAgain: a guest that cannot be asked now is asked later, one that has no copy is not.
func TestAgain(t *testing.T) {
	g := newGuest(errdefs.ErrFailedPrecondition, nil, errdefs.ErrNotFound)
	w := start(t, g)
	dir, mark := volume(t, "configmap", "v"), volume(t, "secret", "mark")
	bind(t, w, readOnly(mark), "mark")
	bind(t, w, readOnly(dir), ".live/0")
	publish(t, dir, "..1", "new")
	g.want(t, ".live/0 ..1")
	g.want(t, ".live/0 ..1")
	publish(t, dir, "..2", "newer")
	g.want(t, ".live/0 ..2")
	g.wantNothing(t, mark)
}

// TestMeanwhile: what changes while a volume is exposed is not lost.
func TestMeanwhile(t *testing.T) {
	g := newGuest()
	w := start(t, g)
	dir := volume(t, "configmap", "v")
	if _, _, err := w.Bind(readOnly(dir), func(share.Bind) (string, bool, error) {
		publish(t, dir, "..1", "new")
		return ".live/0", false, nil
	}); err != nil {
		t.Fatal(err)
	}
	g.want(t, ".live/0 ..1")
}

// TestNotLive: all else is exposed as it was.
func TestNotLive(t *testing.T) {
	g := newGuest()
	w := start(t, g)
	large := volume(t, "configmap", "large")
	if err := os.Truncate(filepath.Join(large, "..0", "key"), 9<<20); err != nil {
		t.Fatal(err)
	}
	many := volume(t, "configmap", "many")
	for i := range 1100 { // each has a page, and an inode
		if err := os.WriteFile(filepath.Join(many, "..0", strconv.Itoa(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plain := volume(t, "configmap", "plain")
	if err := os.Remove(filepath.Join(plain, "..data")); err != nil {
		t.Fatal(err)
	}
	dir := volume(t, "configmap", "v")
	for what, b := range map[string]share.Bind{
		"large": readOnly(large), "many files": readOnly(many), "no link": readOnly(plain), "another kind": readOnly(volume(t, "empty-dir", "v")),
		"a part": readOnly(filepath.Join(dir, "..0")), "another pod's": {Source: dir, Access: share.WriteBelow, Pod: "4567"},
		"no pod's": {Source: dir, Access: share.WriteBelow}, "to be written": {Source: dir, Pod: pod},
		"gone": readOnly(filepath.Join(dir, "../none")),
	} {
		if bind(t, w, b, "x") {
			t.Errorf("%s: is live", what)
		}
	}
	failed := errors.New("no room")
	if _, _, err := w.Bind(readOnly(dir), func(share.Bind) (string, bool, error) { return "", false, failed }); !errors.Is(err, failed) {
		t.Errorf("an error of who exposes it: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if bind(t, w, readOnly(dir), "x") {
		t.Error("live after the end")
	}
}

// TestNotEnough: volumes whose copies would take too much memory together are exposed as
// any other, until others are gone.
func TestNotEnough(t *testing.T) {
	w := start(t, newGuest())
	large := func(name string) share.Bind {
		dir := volume(t, "configmap", name)
		if err := os.Truncate(filepath.Join(dir, "..0", "key"), 7<<20); err != nil {
			t.Fatal(err)
		}
		return readOnly(dir)
	}
	first, second, third := large("1"), large("2"), large("3")
	for what, b := range map[string]share.Bind{".live/1": first, ".live/2": second} {
		if !bind(t, w, b, what) {
			t.Fatalf("%s is not live", what)
		}
	}
	if bind(t, w, third, "x") {
		t.Error("21 MiB are copied")
	}
	if !bind(t, w, first, ".live/1") || !bind(t, w, readOnly(volume(t, "configmap", "small")), ".live/4") {
		t.Error("what needs no more memory, or little, is not live")
	}
	w.Forget(".live/2")
	if !bind(t, w, third, ".live/3") {
		t.Error("what others had is not free again")
	}
}

// TestGrows: the guest is not asked to copy what has become too large, alone or with the others, and is again for what has not.
func TestGrows(t *testing.T) {
	g := newGuest()
	w := start(t, g)
	dir, other, mark := volume(t, "configmap", "v"), volume(t, "secret", "other"), volume(t, "secret", "mark")
	publish(t, other, "..1", strings.Repeat("x", 7<<20))
	bind(t, w, readOnly(mark), "mark")
	bind(t, w, readOnly(dir), ".live/0")
	bind(t, w, readOnly(other), ".live/1")
	publish(t, dir, "..1", strings.Repeat("x", 9<<20))
	g.wantNothing(t, mark)
	publish(t, dir, "..2", strings.Repeat("x", 7<<20))
	g.want(t, ".live/0 ..2")
	publish(t, mark, "..1", strings.Repeat("x", 3<<20)) // 17 MiB
	publish(t, dir, "..3", "small")
	g.want(t, ".live/0 ..3")
	if len(g.asked) > 0 {
		t.Errorf("the guest is asked for %q", <-g.asked)
	}
}

// limits are those of a user namespace, which this test binary is run in.
var limits = []string{"max_inotify_instances", "max_inotify_watches"}

// TestNoInotify: where root has no inotify instance left, or no watch, changes are seen all
// the same.
func TestNoInotify(t *testing.T) {
	limit, ok := os.LookupEnv("TEST_LIMIT")
	if !ok {
		for _, limit := range limits {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestNoInotify$", "-test.v")
			cmd.Env = append(os.Environ(), "TEST_LIMIT="+limit)
			ids := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids}
			out, err := cmd.CombinedOutput()
			if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
				t.Skipf("no user namespaces: %v", err)
			}
			t.Logf("%s", out)
			if err != nil {
				t.Errorf("with %s 0: %v", limit, err)
			}
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	g := newGuest()
	w := start(t, g)
	dir, mark := volume(t, "configmap", "v"), volume(t, "secret", "mark")
	if !bind(t, w, readOnly(mark), "mark") || !bind(t, w, readOnly(dir), ".live/0") {
		t.Fatal("not live")
	}
	publish(t, dir, "..1", "new")
	g.want(t, ".live/0 ..1")
	w.Forget(".live/0")
	publish(t, dir, "..2", "newer")
	g.wantNothing(t, mark)
	w.Forget("mark")
}
