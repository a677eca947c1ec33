package debug

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestJournalWithoutRoom: what does not fit is left out wholly, and what comes when there is room again can be read.
func TestJournalWithoutRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := store.DirOf(root, "ns", "pod")
	if err := dir.Create(store.State{Namespace: "ns", ID: "pod"}); err != nil {
		t.Fatal(err)
	}
	h := NewHistory()
	if err := h.keep(dir); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(root, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("there is room")
	}
	h.Note("lost", strings.Repeat("x", 8<<10))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.Note("kept", "")
	if err := h.journal.close(debugapi.Counters{ID: "pod"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir.Path(), store.JournalFile))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for line := range strings.Lines(string(text)) {
		var j debugapi.Journal
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			t.Fatalf("%v in %.100q", err, line)
		}
		if j.Event != nil {
			kinds = append(kinds, j.Event.Kind)
		}
	}
	if strings.Join(kinds, " ") != "kept" {
		t.Errorf("events %q", kinds)
	}
}
