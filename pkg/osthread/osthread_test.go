package osthread

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newNetNS makes a network namespace.
func newNetNS(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	var ns *os.File
	err := Run(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

func sameNetNS(t *testing.T, ns *os.File, path string) bool {
	t.Helper()
	a, err := ns.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(a, b)
}

func TestStart(t *testing.T) {
	ns := newNetNS(t)
	tid, end := make(chan int, 1), make(chan struct{})
	if err := GoInNetNS(ns, func() { tid <- unix.Gettid(); <-end }); err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strconv.Itoa(<-tid)
	if !sameNetNS(t, ns, proc+"/ns/net") {
		t.Error("the thread is in another namespace")
	}
	if sameNetNS(t, ns, "/proc/self/ns/net") {
		t.Error("the process is in the namespace as well")
	}
	close(end)
	for { // the thread ends soon after its function
		if _, err := os.Stat(proc); errors.Is(err, os.ErrNotExist) {
			return
		}
		runtime.Gosched()
	}
}

// TestFirstThread looks for the first thread, which must not be taken.
func TestFirstThread(t *testing.T) {
	for range 100 {
		err := Run(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the first thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrors(t *testing.T) {
	failure := errors.New("failure")
	if err := Run(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	called := false
	if err := GoInNetNS(file, func() { called = true }); err == nil || called {
		t.Errorf("no namespace was entered: error %v, called %v", err, called)
	}
}
