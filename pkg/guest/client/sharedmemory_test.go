package client_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestCompatSharedMemory: what the Go agent does not give a pod is refused by its name, and what every
// pod has is told once for each container.
func TestCompatSharedMemory(t *testing.T) {
	for _, dialect := range originals {
		goAgent := dialect == hyperstart.DialectClearGo
		var warnings []string
		f := newFixture(t, dialect, nil, client.Options{Warn: func(s string) { warnings = append(warnings, s) }})
		err := f.StartPod(t.Context(), client.Pod{ShmSize: 1 << 30})
		if refused := errdefs.IsNotImplemented(err) && strings.HasPrefix(err.Error(), "a /dev/shm of more than 64 MiB cannot be had"); refused != goAgent || !goAgent && err != nil {
			t.Errorf("%s: pod: %v", dialect, err)
		}
		if sent := f.sent(0); goAgent && len(sent) > 0 {
			t.Errorf("%s: the guest was asked: %s", dialect, sent)
		}
		if goAgent {
			if err := f.StartPod(t.Context(), client.Pod{ShmSize: 64 << 20}); err != nil {
				t.Errorf("%s: pod of the usual size: %v", dialect, err)
			}
		}
		for _, shares := range []bool{false, true} {
			warnings = nil
			c := client.Container{ID: map[bool]string{false: "own", true: "shared"}[shares], Spec: newSpec(), SharesIPC: shares}
			if err := f.CreateContainer(t.Context(), f.session(), c); err != nil {
				t.Fatal(err)
			}
			if told := strings.Contains(strings.Join(warnings, "\n"), "the IPC namespace and /dev/shm of the pod"); told != (shares && goAgent) {
				t.Errorf("%s: shared %t: warnings %q", dialect, shares, warnings)
			}
		}
	}
}
