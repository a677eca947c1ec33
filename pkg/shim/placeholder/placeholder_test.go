package placeholder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestPlaceholder(t *testing.T) {
	one, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer two.Release()
	if one.PID() == two.PID() || one.PID() == os.Getpid() {
		t.Errorf("pids %d and %d of process %d, want three", one.PID(), two.PID(), os.Getpid())
	}
	proc := filepath.Join("/proc", fmt.Sprint(one.PID()))
	if _, err := os.Stat(filepath.Join(proc, "ns/net")); err != nil {
		t.Error(err)
	}
	one.Release()
	for { // the thread ends soon after
		if _, err := os.Stat(proc); errors.Is(err, os.ErrNotExist) {
			return
		}
		runtime.Gosched()
	}
}
