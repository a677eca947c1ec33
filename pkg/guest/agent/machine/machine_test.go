package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

func TestUevents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &uevents{changed: make(chan struct{})}
		calls := 0
		done := make(chan error)
		go func() {
			done <- u.wait(t.Context(), func() (bool, error) { calls++; return calls == 3, nil })
		}()
		for range 2 {
			synctest.Wait()
			u.mu.Lock()
			close(u.changed)
			u.changed = make(chan struct{})
			u.mu.Unlock()
		}
		if err := <-done; err != nil || calls != 3 {
			t.Errorf("got %v after %d calls", err, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := u.wait(ctx, func() (bool, error) { return false, nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestScanPorts(t *testing.T) {
	class := t.TempDir()
	for dir, name := range map[string]string{"vport1p1": layout.CtlPort + "\n", "vport1p2": layout.TTYPort + "\n", "vport1p3": layout.CtlPort + "0\n"} {
		if err := os.Mkdir(filepath.Join(class, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, dir, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	scanPorts(class, got)
	want := map[string]string{layout.CtlPort: "/dev/vport1p1", layout.TTYPort: "/dev/vport1p2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
