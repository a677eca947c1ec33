package shared

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// publish writes a volume as a kubelet does: files has names and texts.
func publish(t *testing.T, volume, data string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(volume, data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := os.Readlink(filepath.Join(volume, dataLink))
	if err := os.Symlink(data, filepath.Join(volume, dataLinkNew)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(volume, dataLinkNew), filepath.Join(volume, dataLink)); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(volume, old)); err != nil {
			t.Fatal(err)
		}
	}
}

// read returns all files below a directory that its links lead to.
func read(t *testing.T, dir string, names ...string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			texts[name] = string(b)
		}
	}
	return texts
}

// liveVolume makes a share with a live volume, of which a container has the copy.
func liveVolume(t *testing.T) (tab *Table, volume, dir string) {
	t.Helper()
	tab = share(t)
	volume = filepath.Join(tab.share, hyperstart.LiveVolumes, "7")
	publish(t, volume, "..1", map[string]string{"a": "one", "deep/b": "two", "old": "three"})
	if err := os.Lchown(filepath.Join(volume, "..1", "a"), 12, 34); err != nil {
		t.Fatal(err)
	}
	s := spec(t, tab.share+"/c/rootfs", volume)
	if err := tab.Acquire("c", s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tab.Release("c"); err != nil {
			t.Error(err)
		}
	})
	return tab, volume, sources(t, s)[0]
}

func TestLive(t *testing.T) {
	tab, volume, dir := liveVolume(t)
	if dir == volume {
		t.Fatal("it is no copy")
	}
	names := []string{"a", "deep/b", "old", "new"}
	if diff := cmp.Diff(map[string]string{"a": "one", "deep/b": "two", "old": "three"}, read(t, dir, names...)); diff != "" {
		t.Error(diff)
	}
	var st, want unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(dir, "a"), &st), unix.Stat(filepath.Join(volume, "..1", "a"), &want)); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 12 || st.Gid != 34 || st.Mode != want.Mode || st.Mtim != want.Mtim || st.Ino == want.Ino && st.Dev == want.Dev {
		t.Errorf("copied as %+v, not %+v", st, want)
	}

	events := watch(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "mine"), 0o755); err != nil { // a place for another mount
		t.Fatal(err)
	}
	publish(t, volume, "..2", map[string]string{"a": "changed", "deep/b": "two", "new": "four"})
	if err := tab.RefreshVolume(t.Context(), hyperstart.RefreshVolumeRequest{Volume: ".live/7", Data: "..2"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "changed", "deep/b": "two", "new": "four"}, read(t, dir, names...)); diff != "" {
		t.Error(diff)
	}
	if got := events(); !strings.Contains(got, "moved to ..data\n") {
		t.Errorf("who watches it is told:\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Errorf("what the container has there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "..1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old files: %v", err)
	}
}

// watch watches a directory; the function returns the names that were moved into it.
func watch(t *testing.T, dir string) func() string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return func() string {
		var text strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				return text.String()
			}
			text.WriteString("moved to " + strings.TrimRight(string(buf[unix.SizeofInotifyEvent:n]), "\x00") + "\n")
		}
	}
}

// TestLiveShared: containers of a pod have one copy, which is there until the last one is
// removed.
func TestLiveShared(t *testing.T) {
	tab, volume, dir := liveVolume(t)
	s := spec(t, tab.share+"/c/rootfs", volume)
	if err := tab.Acquire("d", s); err != nil {
		t.Fatal(err)
	}
	if got := sources(t, s)[0]; got != dir {
		t.Errorf("the second container has %s, the first %s", got, dir)
	}
	if err := tab.Release("c"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "a")["a"]; got != "one" {
		t.Errorf("the second one reads %q", got)
	}
	if err := tab.Release("d"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	err := tab.RefreshVolume(t.Context(), hyperstart.RefreshVolumeRequest{Volume: ".live/7", Data: "..2"})
	if classOf(err) != hyperstart.ClassNotFound {
		t.Errorf("refresh what is gone: %v", err)
	}
}

// TestLiveRefused: what cannot be copied leaves the copy as it was.
func TestLiveRefused(t *testing.T) {
	tab, volume, dir := liveVolume(t)
	for data, class := range map[string]hyperstart.ErrorClass{
		"": hyperstart.ClassInvalidArgument, "..": hyperstart.ClassInvalidArgument, "a": hyperstart.ClassInvalidArgument,
		"../x": hyperstart.ClassInvalidArgument, "..x/y": hyperstart.ClassInvalidArgument, "..data": hyperstart.ClassInvalidArgument,
		"..none": hyperstart.ClassUnknown,
	} {
		err := tab.RefreshVolume(t.Context(), hyperstart.RefreshVolumeRequest{Volume: ".live/7", Data: data})
		if err == nil || classOf(err) != class {
			t.Errorf("%q: %v", data, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(volume, "..pipe"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(volume, "..pipe", "p"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tab.RefreshVolume(t.Context(), hyperstart.RefreshVolumeRequest{Volume: ".live/7", Data: "..pipe"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a pipe: %v", err)
	}
	if diff := cmp.Diff(map[string]string{"a": "one"}, read(t, dir, "a", "p")); diff != "" {
		t.Error(diff)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 { // ..1, ..data, a, deep, old
		t.Errorf("left: %v, %v", entries, err)
	}
}

// classOf is the class of an error for the host.
func classOf(err error) hyperstart.ErrorClass {
	if e, ok := errors.AsType[*hyperstart.GuestError](err); ok {
		return e.Class
	}
	return hyperstart.ClassUnknown
}
