//go:build e2e

package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

// ImageName is the image that every containerd has.
const ImageName = "ccv2.test/busybox:latest"

// Containerd is a private containerd on a Host.
type Containerd struct {
	*Host

	Client  *client.Client
	release Release
	log     *os.File
	cri     *criPaths // nil leaves the CRI out
	net     *os.File  // network namespace of all daemons of the Host
	scopes  int       // that ctr has asked for
	env     []string  // of the daemon, beside the Host's
}

// StartContainerd starts containerd on a Host of its own and imports the test
// image. The caller must Close it.
func StartContainerd() (*Containerd, error) {
	h, err := NewHost()
	if err != nil {
		return nil, err
	}
	c := &Containerd{Host: h}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.importImage(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Private starts a containerd for one test, which may do with it as it likes.
func Private(tb testing.TB) *Containerd {
	tb.Helper()
	c, err := StartContainerd()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Watch makes a test answer for what it leaves behind, and shows what went on
// in containerd and the shims when it fails. It comes before anything that the
// test acquires.
func (c *Containerd) Watch(tb testing.TB) {
	tb.Helper()
	begin := c.logSize()
	tb.Cleanup(func() {
		clean := c.wantClean(tb)
		if tb.Failed() {
			c.explain(tb, begin)
		}
		if !clean {
			c.sweep(tb)
		}
	})
}

// prepare makes what stays when a daemon ends.
func (c *Containerd) prepare() (err error) {
	if c.release == (Release{}) {
		if c.release, err = Usual(); err != nil {
			return err
		}
	}
	if c.log, err = os.Create(c.logPath()); err != nil {
		return err
	}
	c.net, err = newNetNS()
	return err
}

// start starts the daemon and waits until it answers. It has a network
// namespace of its own, so that no interface of the machine is mistaken for one
// of a pod.
func (c *Containerd) start() error {
	config := filepath.Join(c.Dir, "containerd.toml")
	if err := os.WriteFile(config, []byte(c.config()), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(c.release.Dir, "containerd"), "-c", config) //nolint:noctx // Close ends it
	cmd.Env = append(c.Env(), c.env...)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	ended, err := startIn(c.net, cmd)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	c.containerd, c.ended = cmd, ended
	if !within(Patience, func() bool { err = c.connect(); return err == nil }) {
		return fmt.Errorf("containerd does not answer: %w\n%s", err, c.logFrom(0))
	}
	return nil
}

// connect makes a client of a daemon that serves.
func (c *Containerd) connect() error {
	cl, err := client.New(c.socketPath(), client.WithDefaultNamespace(c.Namespace))
	if err != nil {
		return err
	}
	if ok, err := cl.IsServing(context.Background()); err != nil || !ok {
		return errors.Join(errors.New("not serving yet"), err, cl.Close())
	}
	c.Client = cl
	return nil
}

// importImage imports the archive, with the ctr of an older release: the client
// here is made for the newest.
func (c *Containerd) importImage() error {
	if c.release.before(v23) {
		out, err := c.ctrCommand(context.Background(), []string{"images", "import", c.Archive}).CombinedOutput()
		if err != nil {
			return fmt.Errorf("import %s: %w: %s", c.Archive, err, out)
		}
		return nil
	}
	f, err := os.Open(c.Archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	images, err := c.Client.Import(c.Context(), f)
	if err != nil {
		return fmt.Errorf("import %s: %w", c.Archive, err)
	}
	for _, image := range images {
		if err := client.NewImage(c.Client, image).Unpack(c.Context(), ""); err != nil {
			return fmt.Errorf("unpack %s: %w", image.Name, err)
		}
	}
	return nil
}

// Context has the Host's namespace.
func (c *Containerd) Context() context.Context {
	return namespaces.WithNamespace(context.Background(), c.Namespace)
}

// Kill ends the daemon without warning. Shims live on. The rest of a bundle that
// the daemon was just removing goes as well: the next one overlooks it, whatever
// the runtime is.
func (c *Containerd) Kill(tb testing.TB) {
	tb.Helper()
	_ = c.containerd.Process.Kill() // it may have ended
	<-c.ended
	_ = c.Client.Close()
	c.containerd = nil
	halves, _ := filepath.Glob(c.Bundle(".*", "")) // the pattern is well-formed
	for _, half := range halves {
		if err := os.RemoveAll(half); err != nil {
			tb.Errorf("remove half a bundle: %v", err)
		}
	}
}

// RestartWith ends the daemon and starts it again with more in its environment.
func (c *Containerd) RestartWith(tb testing.TB, env ...string) {
	tb.Helper()
	c.Kill(tb)
	c.env = append(c.env, env...)
	c.Restart(tb)
}

// Listen listens on the daemon's loopback.
func (c *Containerd) Listen(tb testing.TB) (l net.Listener) {
	tb.Helper()
	err := osthread.RunInNetNS(c.net, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// Restart starts the daemon again after Kill.
func (c *Containerd) Restart(tb testing.TB) {
	tb.Helper()
	if err := c.start(); err != nil {
		tb.Fatal(err)
	}
}

// Close ends the daemon in order and removes the Host.
func (c *Containerd) Close() error {
	if c.Client != nil {
		_ = c.Client.Close() // nothing waits for an answer
	}
	if c.containerd != nil {
		_ = c.containerd.Process.Signal(unix.SIGTERM)
		<-c.ended
		c.containerd = nil
	}
	_ = c.log.Close()
	_ = c.net.Close() // with it the namespace
	return c.Host.Close()
}

// explain shows the log of containerd and the shims, after the shims that still
// live have written their stacks to it.
func (c *Containerd) explain(tb testing.TB, begin int64) {
	tb.Helper()
	for _, p := range c.Processes() {
		if strings.HasPrefix(p.Name, string(Shim)) {
			if _, err := c.stacks(p); err != nil {
				tb.Logf("stacks of %s: %v", p, err)
			}
		}
	}
	const most = 48 << 10
	text := withoutPlugins(c.logFrom(begin))
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	tb.Logf("log of containerd and the shims:\n%s", text)
}
