//go:build e2e

package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sync does what a kubelet does with a pod that shall run, whatever has become
// of earlier attempts: it keeps a sandbox that is ready, and otherwise stops all
// there are and runs the next attempt.
func (p *Pod) Sync(tb testing.TB) {
	tb.Helper()
	var next uint32
	for _, s := range p.Sandboxes(tb) {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			p.ID = s.Id
			return
		}
		next = max(next, s.GetMetadata().GetAttempt()+1)
		if err := p.stopSandbox(s.Id); err != nil {
			tb.Fatalf("stop attempt %d of the pod: %v", s.GetMetadata().GetAttempt(), err)
		}
	}
	p.Config.Metadata.Attempt = next
	if err := p.Run(); err != nil {
		tb.Fatalf("run attempt %d of the pod: %v", next, err)
	}
}

// State is what the CRI says of the pod's present sandbox.
func (p *Pod) State(tb testing.TB) runtimeapi.PodSandboxState {
	tb.Helper()
	r, err := p.cri.Runtime.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		tb.Fatalf("pod status: %v", err)
	}
	return r.GetStatus().GetState()
}

// Sync does what a kubelet does with a container that shall run: one that runs
// is kept, and in place of any other comes the next attempt. One that was created
// only is given a second try before.
func (c *PodContainer) Sync(tb testing.TB) {
	tb.Helper()
	for _, found := range c.Attempts(tb) {
		if c.adopt(tb, found) {
			return
		}
	}
	c.Config.Metadata.Attempt++ // kubelets have no use for a number twice
	if err := c.Create(); err != nil {
		tb.Fatalf("create attempt %d of the container: %v", c.Config.Metadata.Attempt, err)
	}
	if err := c.Run(); err != nil {
		tb.Fatalf("start attempt %d of the container: %v", c.Config.Metadata.Attempt, err)
	}
}

// adopt reports whether an attempt runs.
func (c *PodContainer) adopt(tb testing.TB, found *runtimeapi.Container) bool {
	tb.Helper()
	c.ID = found.Id
	switch found.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return true
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		err := c.Run()
		if err == nil {
			return true
		}
		tb.Logf("start container again: %v", err)
		c.Remove(tb)
	case runtimeapi.ContainerState_CONTAINER_EXITED, runtimeapi.ContainerState_CONTAINER_UNKNOWN:
		c.Stop(tb, 0)
		c.Remove(tb)
	}
	return false
}

// Attempts are all containers of this name in the pod, the newest first.
func (c *PodContainer) Attempts(tb testing.TB) []*runtimeapi.Container {
	tb.Helper()
	r, err := c.pod.cri.Runtime.ListContainers(context.Background(), &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{PodSandboxId: c.pod.ID},
	})
	if err != nil {
		tb.Fatalf("list containers: %v", err)
	}
	all := slices.DeleteFunc(r.GetContainers(), func(found *runtimeapi.Container) bool {
		return found.GetMetadata().GetName() != c.Config.GetMetadata().GetName()
	})
	slices.SortFunc(all, func(a, b *runtimeapi.Container) int {
		return int(b.GetMetadata().GetAttempt()) - int(a.GetMetadata().GetAttempt())
	})
	return all
}

// KillDuring kills the daemon when a call that is under way has come to a
// point, and waits until the call has ended.
func (c *CRI) KillDuring(tb testing.TB, point string, reached func() bool, call func() error) {
	tb.Helper()
	answer, seen := reach(reached, call)
	c.Kill(tb)
	if !seen {
		tb.Fatalf("the call has not come to the point %q within %s", point, Patience)
	}
	tb.Logf("killed at %q, the call said: %v", point, <-answer)
}

// KillShimDuring does the same to all shims that serve, and reports whether there
// were any.
func (c *CRI) KillShimDuring(tb testing.TB, point string, reached func() bool, call func() error) (killed bool) {
	tb.Helper()
	answer, seen := reach(reached, call)
	for _, p := range c.FindAll(Shim) {
		command := p.Args[len(p.Args)-1]
		if command != "start" && command != "delete" && unix.Kill(p.PID, unix.SIGKILL) == nil {
			killed = true
		}
	}
	if !seen {
		tb.Fatalf("the call has not come to the point %q within %s", point, Patience)
	}
	tb.Logf("killed %v at %q, the call said: %v", killed, point, <-answer)
	return killed
}

// reach carries out a call until it comes to a point, or was answered before it
// was seen there.
func reach(reached func() bool, call func() error) (answer chan error, seen bool) {
	answer = make(chan error, 1)
	go func() { answer <- call() }()
	return answer, follow(func() bool { return reached() || len(answer) > 0 })
}

// Steps carries out a call and returns how many steps it has.
func (c *CRI) Steps(tb testing.TB, call func() error) int {
	tb.Helper()
	progress, n := c.Progress(), 0
	answer, seen := reach(func() bool {
		n = progress.Steps()
		return false
	}, call)
	if !seen {
		tb.Fatalf("no answer within %s", Patience)
	}
	if err := <-answer; err != nil {
		tb.Fatal(err)
	}
	return n
}

// follow looks often: what it looks for passes quickly.
func follow(done func() bool) bool {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-limit.C:
			return false
		}
	}
	return true
}

// Progress counts what changes on the host while a call is carried out: files,
// mounts and processes that appear and vanish. It says how far a call is
// without a clock.
type Progress struct {
	cri  *CRI
	seen map[string]bool
	n    int
}

// Progress starts to count.
func (c *CRI) Progress() *Progress {
	p := &Progress{cri: c}
	p.seen = p.facts()
	return p
}

// Steps looks, and returns how much has changed since the beginning.
func (p *Progress) Steps() int {
	now := p.facts()
	for fact := range now {
		if !p.seen[fact] {
			p.n++
		}
	}
	for fact := range p.seen {
		if !now[fact] {
			p.n++
		}
	}
	p.seen = now
	return p.n
}

func (p *Progress) facts() map[string]bool {
	facts := make(map[string]bool)
	for _, dir := range p.cri.transient() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what vanishes while we look is a step, too
			}
			facts[path] = true
			if d.IsDir() && (d.Name() == "rootfs" || d.Name() == "stage") { // an image is no step
				return fs.SkipDir
			}
			return nil
		})
	}
	for _, mount := range p.cri.mounts() {
		facts[mount] = true
	}
	for _, process := range p.cri.Processes() {
		facts[fmt.Sprintf("%s %v", process, process.Args[len(process.Args)-1])] = true
	}
	return facts
}

// NetNS is the path of the pod's network namespace, as the CRI knows it. That of the VMM is another one where it
// was there before the pod.
func (p *Pod) NetNS(tb testing.TB) string {
	tb.Helper()
	r, err := p.cri.Runtime.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		tb.Fatalf("pod sandbox status: %v", err)
	}
	var info struct {
		RuntimeSpec specs.Spec `json:"runtimeSpec"`
	}
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.RuntimeSpec.Linux == nil {
		tb.Fatalf("no specification in %q: %v", r.GetInfo()["info"], err)
	}
	for _, ns := range info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path
		}
	}
	tb.Fatal("the pod has no network namespace")
	return ""
}
