package node

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kube"
)

// unsteady is a cluster whose API server gives some errors before each answer.
type unsteady struct {
	*cluster
	errs []error
	next int
}

func (u *unsteady) answers() error {
	if u.next < len(u.errs) {
		u.next++
		return u.errs[u.next-1]
	}
	u.next = 0
	return nil
}

func (u *unsteady) Label(ctx context.Context, on bool) error {
	if err := u.answers(); err != nil {
		return err
	}
	return u.cluster.Label(ctx, on)
}

func (u *unsteady) Handlers(ctx context.Context) ([]string, error) {
	if err := u.answers(); err != nil {
		return nil, err
	}
	return u.cluster.Handlers(ctx)
}

func (u *unsteady) Deleted(ctx context.Context) (bool, error) {
	if err := u.answers(); err != nil {
		return false, err
	}
	return u.cluster.Deleted(ctx)
}

// TestUnsteady: an API server that does not answer for some time is waited for, when the
// node is to get its label, and when it is to lose it.
func TestUnsteady(t *testing.T) {
	c := &cluster{deleted: true}
	a, ready := agentOn(t, c)
	a.API = &unsteady{cluster: c, errs: []error{
		&url.Error{Op: "Get", Err: errors.New("connection refused")}, &kube.StatusError{Code: 503}, &kube.StatusError{Code: 429}, &kube.StatusError{Code: 409},
	}}
	stop := start(t, a)
	<-ready
	if err := stop(); err != nil || left(t, a) > 0 || !c.has("label true") || !c.has("label false") || !c.has("connection refused: it is tried again") {
		t.Errorf("%v, %d files, %q", err, left(t, a), c.events)
	}
	// A no is not asked again.
	for _, code := range []int{400, 401, 403, 404} {
		c := &cluster{}
		a, _ := agentOn(t, c)
		a.API = &unsteady{cluster: c, errs: []error{&kube.StatusError{Code: code, Message: "no"}}}
		if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "runtimes: the API server says") {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// TestNotListed: a runtime that does not get known is explained.
func TestNotListed(t *testing.T) {
	c := &cluster{handlers: []string{"runc"}}
	a, _ := agentOn(t, c)
	restart := a.Restart
	a.Restart = func(ctx context.Context) error {
		err := restart(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.handlers = []string{"runc"}
		return err
	}
	explained := make(chan struct{})
	a.Out = writer(func(text string) {
		c.event("%s", text)
		if strings.Contains(text, "/etc/containerd/config.toml is not what containerd reads") {
			close(explained)
		}
	})
	stop := start(t, a)
	<-explained
	if err := stop(); err != nil || c.has("label") || c.has("probe") {
		t.Errorf("%v, %q", err, c.events)
	}
}
