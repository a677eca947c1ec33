package kernfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKiB(t *testing.T) {
	if got := KiB([]byte("MemTotal:  10 kB\nMemAvailable:   2 kB\n"), "MemAvailable:"); got != 2048 {
		t.Errorf("got %d", got)
	}
}

func TestFlatKeyed(t *testing.T) {
	got := FlatKeyed([]byte("usage_usec 1500\nbad line here\nnr_throttled x\nlow 0\n"))
	if diff := cmp.Diff(map[string]uint64{"usage_usec": 1500, "low": 0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]uint64{"100\n": 100, "max\n": 0, "": 0} {
		if got := Number([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

// TestWrite neither makes nor cuts a file.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, "af"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "affore" {
		t.Errorf("got %q, %v", b, err)
	}
}
