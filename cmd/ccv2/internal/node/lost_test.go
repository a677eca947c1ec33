package node

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kube"
)

// says is a cluster whose API server gives some errors to the question for the DaemonSet first.
type says struct {
	*cluster
	errs []error
}

func (s *says) Deleted(context.Context) (bool, error) {
	if len(s.errs) == 0 {
		return false, nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return false, err
}

// TestOneNo: a single answer that the pod may not ask is not taken for the end of the
// DaemonSet.
func TestOneNo(t *testing.T) {
	c := &cluster{handlers: []string{"ccv2"}}
	a, ready := agentOn(t, c)
	a.API = &says{cluster: c, errs: []error{&kube.StatusError{Code: 401}, &kube.StatusError{Code: 401}}}
	a.Every = 10 * time.Millisecond // so that the end begins before it looks at its rights
	stop := start(t, a)
	<-ready
	if err := stop(); err != nil || left(t, a) == 0 || c.has("label false") {
		t.Errorf("%v, %d files, %q", err, left(t, a), c.events)
	}
}

// TestLost: a runtime that somebody has taken out of containerd's configuration is written
// there again, and the node has no label until containerd knows of it.
func TestLost(t *testing.T) {
	for name, lose := range map[string]func(a *Agent) error{
		"written anew": func(a *Agent) error {
			return replace(t, filepath.Join(a.Host.Root, a.Host.Containerd), func(path string) error { return os.WriteFile(path, []byte("version = 2\n"), 0o644) })
		},
		"removed":     func(a *Agent) error { return os.Remove(filepath.Join(a.Host.Root, a.Host.Containerd)) },
		"uninstalled": func(a *Agent) error { return install.Uninstall(a.Host, false, io.Discard, nil) },
	} {
		c := &cluster{handlers: []string{"", "runc"}}
		a, _ := agentOn(t, c)
		ready := make(chan struct{})
		a.Ready = func(is bool) error {
			if c.event("ready %v", is); is {
				ready <- struct{}{}
			}
			return nil
		}
		stop := start(t, a)
		<-ready
		c.mu.Lock()
		c.events = nil
		c.mu.Unlock()
		containerd(t, a.Host, -time.Hour) // started before what will be written
		if err := lose(a); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ready:
		case <-time.After(time.Minute):
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("%s: it is not brought up again:\n%s", name, strings.Join(c.events, "\n"))
		}
		if order := strings.Join(c.events, "\n"); !inOrder(order, "has lost the runtime", "ready false", "label false", "installed ccv2 1.0", "restart", "probe", "label true", "ready true") {
			t.Errorf("%s:\n%s", name, order)
		}
		if lost, err := install.Lost(a.Host); lost != "" || err != nil {
			t.Errorf("%s: %s, %v", name, lost, err)
		}
		if err := stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
