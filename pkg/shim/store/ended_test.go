package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestRetire keeps the last journals of sandboxes that have ended, wherever their directories were.
func TestRetire(t *testing.T) {
	root := t.TempDir()
	if paths, err := store.Ended(root); err != nil || len(paths) > 0 {
		t.Errorf("before: %q, %v", paths, err)
	}
	for i := range store.MaxEnded + 10 {
		s := store.State{Namespace: "k8s.io", ID: fmt.Sprintf("pod%03d", i)}
		if i%2 == 1 {
			s.ID += strings.Repeat("x", 100) // whose directory is a hash
		}
		d := store.DirOf(root, s.Namespace, s.ID)
		if err := d.Create(s); err != nil {
			t.Fatal(err)
		}
		if err := d.Retire(s); err != nil { // without a journal
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), []byte(s.ID), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Retire(s); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := store.Ended(root)
	if err != nil || len(paths) != store.MaxEnded {
		t.Fatalf("%d journals, %v", len(paths), err)
	}
	first, err := os.ReadFile(paths[0])
	if err != nil || string(first) != "pod010" {
		t.Errorf("the oldest is %q, %v", first, err)
	}
}

// TestRetireAtOnce: the containers of a sandbox whose shim has died are deleted side by side,
// and each deletion tears the sandbox down. One journal is kept, and none of them fails.
func TestRetireAtOnce(t *testing.T) {
	root := t.TempDir()
	for i := range 50 {
		s := store.State{Namespace: "k8s.io", ID: fmt.Sprintf("pod%03d", i)}
		d := store.DirOf(root, s.Namespace, s.ID)
		if err := d.Create(s); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), []byte(s.ID), 0o600); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := d.Retire(s); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if paths, err := store.Ended(root); err != nil || len(paths) != 50 {
		t.Errorf("%d journals, %v", len(paths), err)
	}
}

// TestRetireClock: a clock that is set back does not put a journal before those of earlier ends.
func TestRetireClock(t *testing.T) {
	root := t.TempDir()
	for i, id := range []string{"first", "second"} {
		s := store.State{Namespace: "k8s.io", ID: id}
		d := store.DirOf(root, s.Namespace, s.ID)
		if err := d.Create(s); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Retire(s); err != nil {
			t.Fatal(err)
		}
		paths, err := store.Ended(root)
		if err != nil || len(paths) != i+1 || !strings.HasSuffix(paths[i], "-"+id+".jsonl") {
			t.Fatalf("after %s: %q, %v", id, paths, err)
		}
		if i == 0 { // it has ended an hour from now
			later := fmt.Sprintf("%020d-first.jsonl", time.Now().Add(time.Hour).UnixNano())
			if err := os.Rename(paths[0], filepath.Join(filepath.Dir(paths[0]), later)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
