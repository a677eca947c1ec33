//go:build e2e

package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sleep is a script that does nothing until it is killed.
const Sleep = "trap 'exit 0' TERM; while :; do sleep 1; done"

// podTimeout bounds one call of the CRI.
var podTimeout = patient(2 * time.Minute)

// Pod is one pod of a CRI.
type Pod struct {
	ID     string
	Config *runtimeapi.PodSandboxConfig
	cri    *CRI
	gone   bool
}

// RunPod runs a pod without containers; change may be nil. What is left of it
// when the test ends is removed.
func (c *CRI) RunPod(tb testing.TB, name string, change func(*runtimeapi.PodSandboxConfig)) *Pod {
	tb.Helper()
	p := c.NewPod(tb, name, change)
	if err := p.Run(); err != nil {
		tb.Fatalf("run pod %s: %v", name, err)
	}
	return p
}

// NewPod is RunPod without running it.
func (c *CRI) NewPod(tb testing.TB, name string, change func(*runtimeapi.PodSandboxConfig)) *Pod {
	tb.Helper()
	p := &Pod{cri: c, Config: &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: name + "-uid"},
		LogDirectory: filepath.Join(c.Dir, "logs", name),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + c.podGroup(name)},
	}}
	if change != nil {
		change(p.Config)
	}
	if err := os.MkdirAll(p.Config.LogDirectory, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Remove(tb) })
	p.makeSlice(tb)
	return p
}

// Run calls RunPodSandbox.
func (p *Pod) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	r, err := p.cri.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.Config, RuntimeHandler: "ccv2"})
	if err == nil {
		p.ID = r.PodSandboxId
	}
	return err
}

// Remove stops and removes the pod. It is idempotent.
func (p *Pod) Remove(tb testing.TB) {
	tb.Helper()
	if p.gone {
		return
	}
	p.gone = true
	for _, s := range p.Sandboxes(tb) {
		p.removeSandbox(tb, s.Id)
	}
	p.removeCgroups(tb)
}

// Sandboxes are all that the CRI knows of the pod, of every attempt.
func (p *Pod) Sandboxes(tb testing.TB) []*runtimeapi.PodSandbox {
	tb.Helper()
	r, err := p.cri.Runtime.ListPodSandbox(context.Background(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		tb.Errorf("list pods: %v", err)
	}
	return slices.DeleteFunc(r.GetItems(), func(s *runtimeapi.PodSandbox) bool {
		return s.GetMetadata().GetUid() != p.Config.GetMetadata().GetUid()
	})
}

// removeSandbox stops and removes one attempt.
func (p *Pod) removeSandbox(tb testing.TB, id string) {
	tb.Helper()
	if err := p.stopSandbox(id); err != nil {
		tb.Errorf("stop pod: %v", err)
	}
	if err := p.deleteSandbox(id); err != nil {
		tb.Errorf("remove pod: %v", err)
	}
}

// End calls StopPodSandbox and RemovePodSandbox.
func (p *Pod) End() error {
	if err := p.stopSandbox(p.ID); err != nil {
		return err
	}
	return p.deleteSandbox(p.ID)
}

func (p *Pod) stopSandbox(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	_, err := p.cri.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return err
}

func (p *Pod) deleteSandbox(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	_, err := p.cri.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// Stats returns the pod's statistics.
func (p *Pod) Stats(tb testing.TB) *runtimeapi.PodSandboxStats {
	tb.Helper()
	r, err := p.cri.Runtime.PodSandboxStats(context.Background(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		tb.Fatalf("pod statistics: %v", err)
	}
	return r.GetStats()
}

// PodContainer is one container of a pod.
type PodContainer struct {
	ID     string
	Config *runtimeapi.ContainerConfig
	pod    *Pod
	log    string
}

// Start runs a shell script as a container.
func (p *Pod) Start(tb testing.TB, name, script string) *PodContainer {
	tb.Helper()
	return p.StartWith(tb, name, script, nil)
}

// StartWith is Start with a change of the container's configuration.
func (p *Pod) StartWith(tb testing.TB, name, script string, change func(*runtimeapi.ContainerConfig)) *PodContainer {
	tb.Helper()
	c := p.Container(name, script, change)
	if err := c.Create(); err != nil {
		tb.Fatalf("create container %s: %v", name, err)
	}
	if err := c.Run(); err != nil {
		tb.Fatalf("start container %s: %v", name, err)
	}
	return c
}

// Container describes a shell script as a container, which is not created yet.
func (p *Pod) Container(name, script string, change func(*runtimeapi.ContainerConfig)) *PodContainer {
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: ImageName},
		Command:  []string{"/bin/sh", "-c", script},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
	if change != nil {
		change(config)
	}
	return &PodContainer{Config: config, pod: p, log: filepath.Join(p.Config.LogDirectory, config.LogPath)}
}

// Create calls CreateContainer.
func (c *PodContainer) Create() error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	r, err := c.pod.cri.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: c.pod.ID, Config: c.Config, SandboxConfig: c.pod.Config,
	})
	if err == nil {
		c.ID = r.ContainerId
	}
	return err
}

// Run calls StartContainer.
func (c *PodContainer) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	_, err := c.pod.cri.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ID})
	return err
}

// Exec runs a command and returns its output, both streams, and its status.
func (c *PodContainer) Exec(tb testing.TB, args ...string) (string, int32) {
	tb.Helper()
	r, err := c.pod.cri.Runtime.ExecSync(context.Background(), &runtimeapi.ExecSyncRequest{
		ContainerId: c.ID, Cmd: args, Timeout: int64(podTimeout / time.Second),
	})
	if err != nil {
		tb.Fatalf("exec %q: %v", args, err)
	}
	return string(r.Stdout) + string(r.Stderr), r.ExitCode
}

// WantOutput runs a command whose output, without white space around it, must
// be want.
func (c *PodContainer) WantOutput(tb testing.TB, want string, args ...string) {
	tb.Helper()
	if got, status := c.Exec(tb, args...); strings.TrimSpace(got) != want || status != 0 {
		tb.Errorf("%q: got %q, status %d, want %q", args, got, status, want)
	}
}

// WantContains runs a command whose output must contain want.
func (c *PodContainer) WantContains(tb testing.TB, want string, args ...string) {
	tb.Helper()
	if got, status := c.Exec(tb, args...); !strings.Contains(got, want) || status != 0 {
		tb.Errorf("%q: got %q, status %d, want it to contain %q", args, got, status, want)
	}
}

// Status is what the CRI says of the container.
func (c *PodContainer) Status(tb testing.TB) *runtimeapi.ContainerStatus {
	tb.Helper()
	r, err := c.pod.cri.Runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		tb.Fatalf("container status: %v", err)
	}
	return r.GetStatus()
}

// PID is the pid that the CRI knows of the container.
func (c *PodContainer) PID(tb testing.TB) int {
	tb.Helper()
	r, err := c.pod.cri.Runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID, Verbose: true})
	if err != nil {
		tb.Fatalf("container status: %v", err)
	}
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.PID == 0 {
		tb.Fatalf("no pid in %q: %v", r.GetInfo()["info"], err)
	}
	return info.PID
}

// Wait waits until the container has ended.
func (c *PodContainer) Wait(tb testing.TB) *runtimeapi.ContainerStatus {
	tb.Helper()
	Until(tb, fmt.Sprintf("container %.12s has ended", c.ID), func() bool {
		return c.Status(tb).State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return c.Status(tb)
}

// Log is what the container has written, in the CRI's format.
func (c *PodContainer) Log(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(c.log)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// Stats returns the container's statistics.
func (c *PodContainer) Stats(tb testing.TB) *runtimeapi.ContainerStats {
	tb.Helper()
	r, err := c.pod.cri.Runtime.ContainerStats(context.Background(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
	if err != nil {
		tb.Fatalf("container statistics: %v", err)
	}
	return r.GetStats()
}

// Update changes the container's limits.
func (c *PodContainer) Update(tb testing.TB, limits *runtimeapi.LinuxContainerResources) {
	tb.Helper()
	_, err := c.pod.cri.Runtime.UpdateContainerResources(context.Background(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: c.ID, Linux: limits,
	})
	if err != nil {
		tb.Fatalf("update container: %v", err)
	}
}

// Stop asks the container to end within some seconds.
func (c *PodContainer) Stop(tb testing.TB, timeout int64) {
	tb.Helper()
	if err := c.TryStop(timeout); err != nil {
		tb.Errorf("stop container: %v", err)
	}
}

// TryStop calls StopContainer.
func (c *PodContainer) TryStop(timeout int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	_, err := c.pod.cri.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: timeout})
	return err
}

// Remove removes the container, running or not.
func (c *PodContainer) Remove(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	if _, err := c.pod.cri.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err != nil {
		tb.Errorf("remove container: %v", err)
	}
}
