//go:build e2e

package cri_test

import (
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestReleases runs what every containerd must be able to do, with those of
// CCV2_CONTAINERDS: containers of ctr and a pod, both through a restart.
func TestReleases(t *testing.T) {
	releases, err := harness.Releases()
	if err != nil {
		t.Fatal(err)
	}
	if len(releases) == 0 {
		t.Skip("CCV2_CONTAINERDS names no directory of a containerd")
	}
	for _, r := range releases {
		t.Run(r.String(), func(t *testing.T) {
			c := ownCRIOf(t, r)
			t.Run("run", func(t *testing.T) { releaseRun(t, c) })
			t.Run("options", func(t *testing.T) { releaseOptions(t, c) })
			t.Run("detached", func(t *testing.T) { releaseDetached(t, c) })
			t.Run("pod", func(t *testing.T) { releasePod(t, c) })
		})
	}
}

// TestUpgrade replaces each containerd of CCV2_CONTAINERDS by the usual one under
// a pod, which lives on and gets another container.
func TestUpgrade(t *testing.T) {
	releases, err := harness.Releases()
	if err != nil {
		t.Fatal(err)
	}
	usual, err := harness.Usual()
	if err != nil {
		t.Fatal(err)
	}
	if len(releases) == 0 {
		t.Skip("CCV2_CONTAINERDS names no directory of a containerd")
	}
	for _, r := range releases {
		if r.String() == usual.String() {
			continue
		}
		t.Run(r.String(), func(t *testing.T) {
			c := ownCRIOf(t, r)
			c.Watch(t)
			pod := c.RunPod(t, "upgraded", nil)
			main := pod.Start(t, "main", harness.Sleep)
			before := main.PID(t)
			c.Kill(t)
			c.Upgrade(t, usual)
			wantOnePod(t, c, pod, main, before)
		})
	}
}

func ownCRIOf(t *testing.T, r harness.Release) *harness.CRI {
	t.Helper()
	c, err := harness.StartCRIOf(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// releaseRun is `ctr run`, without and with a terminal.
func releaseRun(t *testing.T, c *harness.CRI) {
	c.Watch(t)
	want := harness.Result{Stdout: "out\n", Stderr: "err\n", Code: 42}
	if got := c.Ctr(t, "run", "--rm", harness.ImageName, "plain", "/bin/sh", "-c", "echo out; echo err >&2; exit 42"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got := c.CtrTTY(t, "echo in $((20+3)); exit 5\n", "run", "--rm", "--tty", harness.ImageName, "tty", "/bin/sh")
	if got.Code != 5 || !strings.Contains(got.Stdout, "in 23") {
		t.Errorf("got %+v, want exit code 5 and the shell's answer", got)
	}
}

// releaseOptions: the runtime's options reach the shim.
func releaseOptions(t *testing.T, c *harness.CRI) {
	c.Watch(t)
	dir := t.TempDir()
	write(t, dir, "ccv2.toml", "[hypervisor]\npath = \"/no/such/qemu\"\n")
	got := c.Ctr(t, "run", "--rm", "--runtime-config-path", filepath.Join(dir, "ccv2.toml"), harness.ImageName, "options", "true")
	if got.Code == 0 || !strings.Contains(got.Stderr, "/no/such/qemu") {
		t.Errorf("got %+v, want an error that names /no/such/qemu", got)
	}
}

// releaseDetached leads a container of ctr through a restart of containerd.
func releaseDetached(t *testing.T, c *harness.CRI) {
	const id = "detached"
	c.Watch(t)
	events := c.Record(t)
	c.CtrOK(t, "run", "--detach", harness.ImageName, id, "/bin/sh", "-c", `trap "exit 3" TERM; sleep 3600 & while :; do wait; done`)
	t.Cleanup(func() { // whatever failed before
		c.Ctr(t, "task", "rm", "--force", id)
		c.CtrOK(t, "containers", "rm", id)
	})
	want := harness.Result{Stdout: "out\n", Stderr: "err\n", Code: 42}
	if got := c.Ctr(t, "task", "exec", "--exec-id", "e", id, "sh", "-c", "echo out; echo err >&2; exit 42"); got != want {
		t.Errorf("exec: got %+v, want %+v", got, want)
	}
	if got := c.CtrTTY(t, "exit 5\n", "task", "exec", "--tty", "--exec-id", "tty", id, "/bin/sh"); got.Code != 5 {
		t.Errorf("exec with a terminal: %+v, want exit code 5", got)
	}
	c.CtrOK(t, "task", "pause", id)
	c.CtrOK(t, "task", "resume", id)
	for _, topic := range []string{"create", "start", "paused", "resumed"} {
		events.Await(t, topic, id, "")
	}
	for _, topic := range []string{"exec-added", "exec-started", "exit"} {
		events.Await(t, topic, id, "e")
	}
	c.Kill(t)
	c.Restart(t)
	events = c.Record(t)
	if out := c.CtrOK(t, "task", "exec", "--exec-id", "again", id, "echo", "alive"); out != "alive\n" {
		t.Errorf("exec after the restart: %q", out)
	}
	if out := c.CtrOK(t, "task", "metrics", id); !strings.Contains(out, "memory.usage") {
		t.Errorf("metrics: %q", out)
	}
	c.CtrOK(t, "task", "kill", "--signal", "SIGTERM", id)
	if got := events.Await(t, "exit", id, ""); got.Status != 3 {
		t.Errorf("event %v, want status 3", got)
	}
	if got := c.Ctr(t, "task", "rm", id); !strings.Contains(got.Stderr, "non-zero exit code 3") {
		t.Errorf("task rm: %+v, want exit code 3", got)
	}
}

// releasePod leads a pod through a restart of containerd.
func releasePod(t *testing.T, c *harness.CRI) {
	c.Watch(t)
	pod := c.RunPod(t, "pod", nil)
	main := pod.Start(t, "main", harness.Sleep)
	reader := pod.StartWith(t, "reader", echo, func(c *runtimeapi.ContainerConfig) { c.Stdin = true })
	s := reader.Attach(t)
	s.Type(t, "one\n")
	awaitText(t, &s.Out, "got one\n")
	s.Detach()
	before := main.PID(t)
	c.Kill(t)
	c.Restart(t)
	wantOnePod(t, c, pod, main, before)
}

// wantOnePod wants a pod to be as it was before another daemon came, gives it one more
// container and removes it.
func wantOnePod(t *testing.T, c *harness.CRI, pod *harness.Pod, main *harness.PodContainer, pid int) {
	t.Helper()
	if got := main.Status(t).State; got != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s", got)
	}
	if got := main.PID(t); got != pid {
		t.Errorf("the container's pid is %d, was %d", got, pid)
	}
	main.WantOutput(t, "alive", "echo", "alive")
	other := pod.Start(t, "other", harness.Sleep)
	host, _ := main.Exec(t, "cat", "/proc/sys/kernel/random/boot_id")
	other.WantOutput(t, strings.TrimSpace(host), "cat", "/proc/sys/kernel/random/boot_id")
	if got := c.FindAll(harness.QEMU); len(got) != 1 {
		t.Errorf("the pod has %d VMs: %v", len(got), got)
	}
	other.Stop(t, 0)
	if got := other.Wait(t); got.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", got.ExitCode)
	}
	main.Stop(t, 10)
	if got := main.Wait(t); got.ExitCode != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", got.ExitCode)
	}
	pod.Remove(t)
}
