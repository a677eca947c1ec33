//go:build e2e

package cri_test

import (
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// echo answers each line that it reads.
const echo = `while read line; do echo "got $line"; done; echo over`

// TestAttach attaches to containers of one pod, goes, and comes again.
func TestAttach(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "attach", nil)
	t.Run("stdin", func(t *testing.T) {
		c := pod.StartWith(t, "plain", echo, func(c *runtimeapi.ContainerConfig) { c.Stdin = true })
		for _, word := range []string{"one", "two"} {
			s := c.Attach(t)
			s.Type(t, word+"\n")
			awaitText(t, &s.Out, "got "+word+"\n")
			s.Detach()
		}
		if log := c.Log(t); !strings.Contains(log, "got one") || !strings.Contains(log, "got two") || strings.Contains(log, "over") {
			t.Errorf("log %q", log)
		}
		c.Stop(t, 0)
	})
	t.Run("stdin once", func(t *testing.T) {
		c := pod.StartWith(t, "once", echo, func(c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, true })
		s := c.Attach(t)
		s.Type(t, "one\n")
		awaitText(t, &s.Out, "got one\n")
		s.Detach()
		c.Wait(t)
		if log := c.Log(t); !strings.Contains(log, "over") {
			t.Errorf("log %q", log)
		}
	})
	t.Run("terminal", func(t *testing.T) { attachTerminal(t, pod) })
	t.Run("nobody reads", func(t *testing.T) { attachStuck(t, pod) })
	pod.Remove(t)
}

// attachTerminal is also what an ephemeral container is: one that is made in a
// pod that runs, with a terminal, to look at the others.
func attachTerminal(t *testing.T, pod *harness.Pod) {
	c := pod.StartWith(t, "terminal", "exec sh -i", func(c *runtimeapi.ContainerConfig) { c.Stdin, c.Tty = true, true })
	for i, size := range [][2]int{{81, 25}, {133, 44}} {
		s := c.Attach(t)
		s.Resize(t, size[0], size[1])
		want := fmt.Sprintf("%d %d", size[1], size[0])
		harness.Until(t, "terminal of "+want, func() bool {
			s.Type(t, "stty size\n")
			return strings.Contains(s.Out.String(), want+"\r\n")
		})
		s.Type(t, fmt.Sprintf("tty; echo round-$((%d+1)); ps\n", i))
		awaitText(t, &s.Out, fmt.Sprintf("round-%d\r\n", i+1))
		awaitText(t, &s.Out, "sleep infinity") // of another container of the pod
		s.Detach()
	}
	exec := c.ExecTTY(t, "sh", "-i")
	exec.Resize(t, 99, 33)
	harness.Until(t, "terminal of an exec", func() bool {
		exec.Type(t, "stty size\n")
		return strings.Contains(exec.Out.String(), "33 99\r\n")
	})
	exec.Type(t, "exit 3\n")
	harness.Until(t, "end of the exec", exec.Ended)
	s := c.Attach(t)
	s.Type(t, "exit 5\n")
	if got := c.Wait(t); got.ExitCode != 5 {
		t.Errorf("exit code %d, want 5", got.ExitCode)
	}
	harness.Until(t, "end of the stream", s.Ended)
}

// attachStuck has a client that takes nothing of an endless output. Nothing but
// this stream may stand still.
func attachStuck(t *testing.T, pod *harness.Pod) {
	other := pod.Start(t, "other", harness.Sleep)
	c := pod.StartWith(t, "noisy", "while [ ! -e /tmp/go ]; do sleep 0.1; done; yes", nil)
	detach := c.AttachStuck(t)
	c.WantOutput(t, "", "touch", "/tmp/go")
	var size int
	harness.Until(t, "log stands still", func() bool {
		last := size
		size = len(c.Log(t))
		out, _ := c.Exec(t, "sleep", "0.3")
		return out == "" && size > 0 && size == last
	})
	other.WantOutput(t, "alive", "echo", "alive")
	c.WantOutput(t, "alive", "echo", "alive")
	if got := c.Stats(t); got.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Error("no statistics")
	}
	next := pod.Start(t, "next", "echo done")
	next.Wait(t)
	if log := next.Log(t); !strings.Contains(log, "done") {
		t.Errorf("log %q", log)
	}
	other.Stop(t, 0)
	detach()
	harness.Until(t, "log continues", func() bool { return len(c.Log(t)) > size })
	c.Stop(t, 0)
	if got := c.Wait(t); got.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", got.ExitCode)
	}
}

// awaitText waits until a stream has brought something.
func awaitText(t *testing.T, b *harness.Buffer, text string) {
	t.Helper()
	harness.Until(t, fmt.Sprintf("%q in %q", text, b), func() bool { return strings.Contains(b.String(), text) })
}
