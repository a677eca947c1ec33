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

// TestSpans: spans are found where a sandbox lives and where it has ended, and go with its journal.
func TestSpans(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a[*") // which is no pattern
	if paths, err := store.Spans(root); err != nil || len(paths) > 0 {
		t.Errorf("before: %q, %v", paths, err)
	}
	end := func(i int) {
		s := store.State{Namespace: "k8s.io", ID: fmt.Sprintf("pod%03d", i)}
		if i%2 == 1 {
			s.ID += strings.Repeat("x", 100) // whose directory is a hash
		}
		d := store.DirOf(root, s.Namespace, s.ID)
		if err := d.Create(s); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{store.JournalFile, store.SpansFile, store.SpansFile + store.BeforeSuffix} {
			if err := os.WriteFile(filepath.Join(d.Path(), name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if i > 1 {
			if err := d.Retire(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 2 {
		end(i)
	}
	for n := range store.MaxEnded + 10 {
		end(n + 2)
		paths, err := store.Spans(root)
		if want := 4 + 2*min(n+1, store.MaxEnded); err != nil || len(paths) != want {
			t.Fatalf("%d: %d files of spans, want %d: %v", n, len(paths), want, err)
		}
	}
	if all, err := os.ReadDir(filepath.Join(root, ".ended")); err != nil || len(all) != 3*store.MaxEnded {
		t.Errorf("%d files, %v", len(all), err)
	}
	seen := map[string]bool{}
	paths, _ := store.Spans(root)
	for _, path := range paths {
		older := strings.HasSuffix(path, store.BeforeSuffix)
		if base := strings.TrimSuffix(path, store.BeforeSuffix); !older && !seen[base+store.BeforeSuffix] {
			t.Errorf("%s comes before the older one", path)
		}
		seen[path] = true
	}
}
