package ociruntime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// TestStart has the init process of crun's container in a test: it waits for a byte, and is told once.
func TestStart(t *testing.T) {
	r := &Runtime{base: runc.Runc{Root: t.TempDir()}}
	c := Container{ID: "c"}
	fifo := filepath.Join(r.base.Root, c.ID, "exec.fifo")
	if err := os.Mkdir(filepath.Dir(fifo), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "start container c: its init process has ended") {
		t.Errorf("without an init process: %v", err)
	}
	init, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	if err := r.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if n, err := init.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("the init process got %d bytes, %v", n, err)
	}
	if err := r.Start(t.Context(), c); err == nil {
		t.Error("it was started twice")
	}
	for range 2 { // what is not there is no error
		if err := r.Delete(t.Context(), c, false); err != nil || exists(filepath.Dir(fifo)) {
			t.Errorf("delete: %v, there %v", err, exists(filepath.Dir(fifo)))
		}
	}
}
