package manager

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc/hostproctest"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func TestSandboxOf(t *testing.T) {
	for _, tt := range []struct{ config, want string }{
		{`{}`, "c"},
		{`{"annotations":{"other":"x"}}`, "c"},
		{`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`, "pod"},
		{`{"annotations":{"io.kubernetes.cri-o.SandboxID":"pod"}}`, "pod"},
		{`{"annotations":{"io.kubernetes.cri.sandbox-id":""}}`, "c"},
	} {
		bundlePath := t.TempDir()
		if err := os.WriteFile(filepath.Join(bundlePath, "config.json"), []byte(tt.config), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := sandboxOf(bundlePath, "c"); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v", tt.config, got, err)
		}
	}
	bundlePath := t.TempDir()
	for _, group := range []string{"..", "../../etc", "a/b", "-x"} {
		text := `{"annotations":{"io.kubernetes.cri.sandbox-id":"` + group + `"}}`
		if err := os.WriteFile(filepath.Join(bundlePath, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := sandboxOf(bundlePath, "c"); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %q, %v", group, got, err)
		}
	}
	bundlePath = t.TempDir()
	if _, err := sandboxOf(bundlePath, "c"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without config.json: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bundlePath, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandboxOf(bundlePath, "c"); err == nil {
		t.Error("half a config.json was read")
	}
}

// deleted runs the delete command for a container.
func deleted(t *testing.T, bundlePath, id string) shim.StopStatus {
	t.Helper()
	ctx := context.WithValue(t.Context(), shim.OptsKey{}, shim.Opts{BundlePath: bundlePath})
	status, err := New("io.containerd.ccv2.v2").Stop(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// sandboxOn makes the record of a sandbox "pod" with a VMM and a shim.
func sandboxOn(t *testing.T) (dir store.Dir, shimProcess hostproc.Process, vmm <-chan struct{}) {
	t.Helper()
	dir = store.DirOf(t.TempDir(), "ns", "pod")
	shimProcess, _ = hostproctest.Start(t)
	vm, ended := hostproctest.Start(t)
	if err := dir.Create(store.State{Namespace: "ns", ID: "pod", Shim: shimProcess, Processes: []hostproc.Process{vm}}); err != nil {
		t.Fatal(err)
	}
	return dir, shimProcess, ended
}

func bundleOf(t *testing.T, dir store.Dir, id string) string {
	t.Helper()
	bundlePath := t.TempDir()
	if err := bundle.SaveNote(bundlePath, bundle.Note{Dir: dir.Path(), SandboxID: "pod", Share: id}); err != nil {
		t.Fatal(err)
	}
	return bundlePath
}

func exists(dir store.Dir) bool {
	_, err := os.Stat(dir.Path())
	return err == nil
}

// TestDeleteOfNothing: a container of which nothing is known was killed.
func TestDeleteOfNothing(t *testing.T) {
	if got := deleted(t, t.TempDir(), "c"); got.ExitStatus != 137 || got.ExitedAt.IsZero() {
		t.Errorf("%+v", got)
	}
}

// TestDeleteAfterTheDeathOfTheShim: the events of the exit name the pid that
// containerd was given.
func TestDeleteAfterTheDeathOfTheShim(t *testing.T) {
	bundlePath := t.TempDir()
	dir := store.DirOf(t.TempDir(), "ns", "pod")
	if err := bundle.SaveNote(bundlePath, bundle.Note{Dir: dir.Path(), SandboxID: "pod", Share: "c", PID: 42}); err != nil {
		t.Fatal(err)
	}
	if got := deleted(t, bundlePath, "c"); got.ExitStatus != 137 || got.Pid != 42 {
		t.Errorf("%+v", got)
	}
}

// TestDeleteOfTheSandbox ends its processes, the shim first, and takes its
// directory away. Doing it again is not an error.
func TestDeleteOfTheSandbox(t *testing.T) {
	dir, shimProcess, vmm := sandboxOn(t)
	bundlePath := bundleOf(t, dir, "pod")
	at := time.Unix(7, 0).UTC()
	if err := bundle.SaveExit(bundlePath, bundle.Exit{Status: 3, At: at, PID: 42}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := deleted(t, bundlePath, "pod")
		if got.ExitStatus != 3 || !got.ExitedAt.Equal(at) || got.Pid != 42 {
			t.Errorf("%+v", got)
		}
	}
	<-vmm
	if shimProcess.Alive() || exists(dir) {
		t.Errorf("shim alive: %v, directory there: %v", shimProcess.Alive(), exists(dir))
	}
}

// startedFor makes the bundle of a sandbox for which a shim was started, of which
// nothing was asked yet.
func startedFor(t *testing.T, config string) (bundlePath string, shimProcess hostproc.Process) {
	t.Helper()
	bundlePath = t.TempDir()
	if err := os.WriteFile(filepath.Join(bundlePath, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	shimProcess, _ = hostproctest.Start(t)
	if err := bundle.SaveAddress(bundlePath, bundle.Address{Address: "unix:///nowhere", Shim: &shimProcess}); err != nil {
		t.Fatal(err)
	}
	return bundlePath, shimProcess
}

// TestDeleteOfAnUnusedShim: containerd died before it had the address.
func TestDeleteOfAnUnusedShim(t *testing.T) {
	bundlePath, shimProcess := startedFor(t, "{}")
	deleted(t, bundlePath, "pod")
	if shimProcess.Alive() {
		t.Error("the shim lives")
	}
	bundlePath, shimProcess = startedFor(t, "{}")
	if err := os.Mkdir(filepath.Join(bundlePath, "ccv2-deleted"), 0o700); err != nil { // the mark cannot be made
		t.Fatal(err)
	}
	deleted(t, bundlePath, "pod")
	if shimProcess.Alive() {
		t.Error("the shim lives because the bundle cannot be written to")
	}
	bundlePath, shimProcess = startedFor(t, `{"annotations":{"io.kubernetes.cri.sandbox-id":"other"}}`)
	deleted(t, bundlePath, "c")
	if !shimProcess.Alive() {
		t.Error("the shim of another sandbox was killed")
	}
}

// TestDeleteOfAnIdleShim: the sandbox was released, and containerd died before
// it asked the shim to end.
func TestDeleteOfAnIdleShim(t *testing.T) {
	dir := store.DirOf(t.TempDir(), "ns", "pod")
	for _, id := range []string{"c", "pod"} {
		bundlePath, shimProcess := startedFor(t, "{}")
		if err := bundle.SaveNote(bundlePath, bundle.Note{Dir: dir.Path(), SandboxID: "pod", Share: id}); err != nil {
			t.Fatal(err)
		}
		deleted(t, bundlePath, id)
		if alive := shimProcess.Alive(); alive != (id != "pod") {
			t.Errorf("delete of %s: the shim lives: %v", id, alive)
		}
	}
}

// TestStartAfterDelete: the start command of a containerd that is dead comes
// after the delete command of the next one.
func TestStartAfterDelete(t *testing.T) {
	bundlePath := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundlePath, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockNew(t.Context(), bundlePath)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockNew(ctx, bundlePath); !errors.Is(err, context.Canceled) {
		t.Errorf("both at once: %v", err)
	}
	unlock()
	deleted(t, bundlePath, "pod")
	if _, err := lockNew(t.Context(), bundlePath); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("marked as deleted: %v", err)
	}
	if err := os.RemoveAll(bundlePath); err != nil {
		t.Fatal(err)
	}
	if _, err := lockNew(t.Context(), bundlePath); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
}

// TestDeleteOfAnotherContainer: a living shim owns what the container has
// acquired; a dead one owns nothing, and the first delete cleans up after it.
func TestDeleteOfAnotherContainer(t *testing.T) {
	dir, shimProcess, vmm := sandboxOn(t)
	deleted(t, bundleOf(t, dir, "c"), "c")
	if !shimProcess.Alive() || !exists(dir) {
		t.Fatal("the sandbox of a living shim was removed")
	}
	if err := shimProcess.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	deleted(t, bundleOf(t, dir, "c"), "c")
	<-vmm
	if exists(dir) {
		t.Error("the sandbox of a dead shim is still there")
	}
}

// TestDeleteOfAnOutlivedSandbox: the sandbox container was deleted, others are left.
func TestDeleteOfAnOutlivedSandbox(t *testing.T) {
	dir, shimProcess, _ := sandboxOn(t)
	bundlePath := t.TempDir()
	if err := bundle.SaveNote(bundlePath, bundle.Note{Dir: dir.Path(), SandboxID: "pod", Share: "pod", Outlived: true}); err != nil {
		t.Fatal(err)
	}
	deleted(t, bundlePath, "pod")
	if !shimProcess.Alive() || !exists(dir) {
		t.Error("the sandbox of other containers was removed")
	}
}

// TestDeleteWithARecordOfAnotherRelease: whether its shim lives cannot be read,
// so a container that is not the sandbox's own leaves all as it is.
func TestDeleteWithARecordOfAnotherRelease(t *testing.T) {
	dir, shimProcess, _ := sandboxOn(t)
	if err := os.WriteFile(filepath.Join(dir.Path(), "state.json"), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(t.Context(), shim.OptsKey{}, shim.Opts{BundlePath: bundleOf(t, dir, "c")})
	if _, err := New("x").Stop(ctx, "c"); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("error %v", err)
	}
	if !shimProcess.Alive() || !exists(dir) {
		t.Error("the sandbox was removed")
	}
}

// TestDeleteWithADamagedRecord is an error and touches nothing.
func TestDeleteWithADamagedRecord(t *testing.T) {
	bundlePath := t.TempDir()
	if err := bundle.SaveNote(bundlePath, bundle.Note{}); err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(t.Context(), shim.OptsKey{}, shim.Opts{BundlePath: bundlePath})
	if _, err := New("x").Stop(ctx, "c"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("error %v", err)
	}
}

// TestAddressOf: a further container of a pod joins the shim of its sandbox,
// which may have been started by a containerd with sockets elsewhere.
func TestAddressOf(t *testing.T) {
	top := t.TempDir()
	for _, id := range []string{"pod", "c"} {
		if err := os.Mkdir(filepath.Join(top, id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(top, "c"))
	sockets, err := os.MkdirTemp("", "ccv2-manager-") // a socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(sockets) }()
	old := "unix://" + filepath.Join(sockets, "old")
	if err := bundle.SaveAddress(filepath.Join(top, "pod"), bundle.Address{Address: old}); err != nil {
		t.Fatal(err)
	}
	ctx := namespaces.WithNamespace(t.Context(), "n")
	dir := "/elsewhere"
	of := func(id string) string {
		address, err := addressOf(ctx, &bootapi.BootstrapParams{InstanceID: id, SocketDir: &dir}, "pod")
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	if got := of("c"); got != of("pod") || !strings.HasPrefix(got, "unix:///elsewhere/") {
		t.Errorf("of a shim that does not run: %s", got)
	}
	socket, err := listen(old)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	if got := of("c"); got != old {
		t.Errorf("of a further container: %s, want %s", got, old)
	}
	if got := of("pod"); got == old {
		t.Error("of the sandbox's own container: that of one of its name")
	}
}

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "ccv2-manager-") // a socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	address := "unix://" + filepath.Join(dir, "s")
	f, err := listen(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(address); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a living shim's socket: %v", err)
	}
	_ = f.Close() // the shim dies, its socket stays
	again, err := listen(address)
	if err != nil {
		t.Fatalf("a dead shim's socket: %v", err)
	}
	_ = again.Close()
}

func TestInfo(t *testing.T) {
	info, err := New("io.containerd.ccv2.v2").Info(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "io.containerd.ccv2.v2" || info.Features == nil {
		t.Errorf("%v", info)
	}
}
