package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kube"
)

// cluster is one with one node. What happens in it and on the host is in events.
type cluster struct {
	mu       sync.Mutex
	handlers []string
	deleted  bool
	fails    error // of the question for the DaemonSet, and of labels
	events   []string
}

func (c *cluster) event(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf(format, args...))
}

func (c *cluster) Label(_ context.Context, on bool) error {
	c.event("label %v", on)
	return nil
}

func (c *cluster) Handlers(context.Context) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handlers, nil
}

func (c *cluster) Deleted(context.Context) (bool, error) { return c.deleted, c.fails }

// Write is the agent's log.
func (c *cluster) Write(p []byte) (int, error) {
	c.event("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (c *cluster) has(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(strings.Join(c.events, "\n"), text)
}

// agentOn is an agent for an empty host; containerd knows of the runtime once it is
// restarted.
func agentOn(t *testing.T, c *cluster) (a *Agent, ready chan struct{}) {
	t.Helper()
	h := install.Defaults()
	h.Root = t.TempDir()
	ready = make(chan struct{})
	var once sync.Once
	containerd(t, h, -time.Hour)
	return &Agent{
		API: c, Host: h, Bundle: bundle(t), Out: c, Every: time.Millisecond, Patience: time.Minute, Apart: time.Hour,
		Restart: func(context.Context) error {
			c.event("restart")
			containerd(t, h, time.Second) // after what was written a moment ago
			c.mu.Lock()
			defer c.mu.Unlock()
			c.handlers = []string{"", "runc", "ccv2"}
			return nil
		},
		Probe:     func(context.Context) error { c.event("probe"); return nil },
		Uninstall: func() error { return install.Uninstall(h, false, c, nil) },
		Ready: func(is bool) error {
			c.event("ready %v", is)
			if is {
				once.Do(func() { close(ready) })
			}
			return nil
		},
	}, ready
}

// containerd runs on the host, started some time from now.
func containerd(t *testing.T, h install.Host, since time.Duration) {
	t.Helper()
	var boot unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	start := (time.Duration(boot.Nano()) + since) / (time.Second / 100)
	for path, text := range map[string]string{"4/comm": "containerd\n", "4/stat": fmt.Sprintf("4 (containerd) S%s %d", strings.Repeat(" 0", 18), start)} {
		err = errors.Join(err, replace(t, filepath.Join(h.Root, "proc", path), func(path string) error { return os.WriteFile(path, []byte(text), 0o644) }))
	}
	for _, pid := range []string{"1", "4"} {
		link := filepath.Join(h.Root, "proc", pid, "ns/mnt")
		err = errors.Join(err, replace(t, link, func(path string) error { return os.Symlink("mnt:[1]", path) }))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// replace makes a file of /proc in one step: an agent may be reading it.
func replace(t *testing.T, path string, create func(path string) error) error {
	t.Helper()
	made := filepath.Join(t.TempDir(), "new")
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), create(made), os.Rename(made, path))
}

func bundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var sums strings.Builder
	for name, text := range map[string]string{"VERSION": "1.0", "share/ccv2/config.toml": "#"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(text)), name)
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// left is how many files there are on the host.
func left(t *testing.T, a *Agent) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(a.Host.Root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "proc" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start runs the agent; stop ends it as the kubelet does, and returns its error.
func start(t *testing.T, a *Agent) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := a.Run(ctx)
		if ctx.Err() == nil { // what is waited for does not come any more
			t.Errorf("the agent has ended: %v", err)
		}
		done <- err
	}()
	return func() error {
		cancel()
		return <-done
	}
}

// TestNode: the label comes after a VM has booted on a containerd that knows of the
// runtime, and everything goes with the DaemonSet, the label first.
func TestNode(t *testing.T) {
	c := &cluster{handlers: []string{"", "runc"}}
	a, ready := agentOn(t, c)
	stop := start(t, a)
	<-ready
	if order := strings.Join(c.events, "\n"); !inOrder(order, "installed ccv2 1.0", "restart", "probe", "label true") {
		t.Errorf("began with:\n%s", order)
	}
	c.deleted, c.events = true, nil
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if order := strings.Join(c.events, "\n"); !inOrder(order, "label false", "uninstalled ccv2 1.0", "restart") {
		t.Errorf("ended with:\n%s", order)
	}
	if n := left(t, a); n > 0 {
		t.Errorf("%d files are left", n)
	}
}

func inOrder(text string, parts ...string) bool {
	for _, part := range parts {
		_, rest, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = rest
	}
	return true
}

// TestStays: an upgrade of the DaemonSet, an API server that does not answer, or rights that
// were lost long before change nothing on the node; without rights, which are deleted
// together with it, the files go.
func TestStays(t *testing.T) {
	for name, tt := range map[string]struct {
		fails error
		early bool // the rights are lost before the end begins
		goes  bool
	}{
		"upgrade": {}, "no answer": {fails: errors.New("refused")}, "broken": {fails: &kube.StatusError{Code: 500}},
		"no rights": {fails: &kube.StatusError{Code: 403}, goes: true}, "no account": {fails: &kube.StatusError{Code: 401}, goes: true},
		"no rights for long": {fails: &kube.StatusError{Code: 403}, early: true}, "no account for long": {fails: &kube.StatusError{Code: 401}, early: true},
	} {
		c := &cluster{handlers: []string{"ccv2"}, fails: tt.fails}
		a, ready := agentOn(t, c)
		if !kube.NoRights(tt.fails) {
			a.Patience = time.Millisecond
		}
		lost := make(chan struct{})
		a.Out = writer(func(text string) {
			c.event("%s", text)
			if strings.Contains(text, "has lost its rights") {
				close(lost)
			}
		})
		if tt.early {
			a.Apart = 0
		}
		stop := start(t, a)
		if <-ready; tt.early {
			<-lost
		}
		c.mu.Lock()
		c.events = nil
		c.mu.Unlock()
		err := stop()
		if (err != nil) != (tt.fails != nil && !tt.goes) || (left(t, a) == 0) != tt.goes || c.has("label false") != tt.goes {
			t.Errorf("%s: %v, %d files, %q", name, err, left(t, a), c.events)
		}
		if tt.goes != c.has("restart") {
			t.Errorf("%s: %q", name, c.events)
		}
	}
}

// TestYesterdaysNews: a kubelet that still lists the runtime, of an installation before this
// one, does not keep containerd from being restarted; one that does not list it yet is
// waited for, also where a containerd is too old to be listed.
func TestYesterdaysNews(t *testing.T) {
	for name, handlers := range map[string][]string{"of before": {"", "ccv2"}, "not yet": {"", "runc"}, "too old": nil} {
		c := &cluster{handlers: handlers}
		a, ready := agentOn(t, c)
		if name == "too old" {
			restart := a.Restart
			a.Restart = func(ctx context.Context) error {
				err := restart(ctx)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.handlers = nil
				return err
			}
		}
		stop := start(t, a)
		<-ready
		if err := stop(); err != nil || !c.has("restart") {
			t.Errorf("%s: %v, %q", name, err, c.events)
		}
	}
}

// TestNoContainerd: a host without it is said to be one.
func TestNoContainerd(t *testing.T) {
	c := &cluster{}
	a, _ := agentOn(t, c)
	if err := os.RemoveAll(filepath.Join(a.Host.Root, "proc/4")); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, install.ErrNoContainerd) || c.has("label") {
		t.Errorf("%v, %q", err, c.events)
	}
}

// TestLeftToOperator: without the setting containerd is not restarted, and the node has no
// label until somebody has done it.
func TestLeftToOperator(t *testing.T) {
	c := &cluster{handlers: []string{"runc"}}
	a, ready := agentOn(t, c)
	restart := a.Restart
	a.Restart = nil
	asked := make(chan struct{})
	a.Out = writer(func(text string) {
		c.event("%s", text)
		if strings.Contains(text, "restart it on this node") {
			close(asked)
		}
	})
	stop := start(t, a)
	<-asked
	if c.has("label") || c.has("probe") {
		t.Errorf("%q", c.events)
	}
	if err := restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ready
	if err := stop(); err != nil || !c.has("label true") {
		t.Errorf("%v, %q", err, c.events)
	}
}

// TestNoVM: a node on which no VM boots has no label, even if it had one.
func TestNoVM(t *testing.T) {
	c := &cluster{handlers: []string{"ccv2"}}
	a, _ := agentOn(t, c)
	a.Probe = func(context.Context) error { return errors.New("no KVM") }
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no VM boots on this node: no KVM") || !c.has("label false") {
		t.Errorf("%v, %q", err, c.events)
	}
}

// TestWaitsForPods: with the DaemonSet deleted, the files stay until the last pod in a VM
// has ended.
func TestWaitsForPods(t *testing.T) {
	c := &cluster{handlers: []string{"ccv2"}, deleted: true}
	a, ready := agentOn(t, c)
	process := filepath.Join(a.Host.Root, "proc/77")
	if err := errors.Join(os.MkdirAll(process, 0o755), os.Symlink("/opt/ccv2/1.0/libexec/qemu", filepath.Join(process, "exe"))); err != nil {
		t.Fatal(err)
	}
	a.Out = writer(func(text string) {
		if strings.Contains(text, "it waits for their end") {
			if left(t, a) < 5 {
				t.Error("files are gone while a pod runs")
			}
			if err := os.RemoveAll(process); err != nil {
				t.Error(err)
			}
		}
		c.event("%s", text)
	})
	stop := start(t, a)
	<-ready
	if err := stop(); err != nil || !c.has("it waits for their end") || !c.has("uninstalled") || left(t, a) > 0 {
		t.Errorf("%v, %d files, %q", err, left(t, a), c.events)
	}
}

type writer func(text string)

func (w writer) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}
