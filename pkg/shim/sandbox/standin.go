package sandbox

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/thread"
)

// standIn stands on the host for a container whose processes are in the guest.
// It is a thread of the shim that does nothing, in the pod's network namespace:
// its id is one that no other container has, by which the CRI names the
// container whose pid namespace another one shall join, and /proc has the
// namespace under it for those who look for the network of a container there.
type standIn struct {
	pid int
	end chan struct{}
}

// newStandIn returns a stand-in, which lives until its close or the sandbox's end.
func (s *Sandbox) newStandIn() (*standIn, error) {
	pid := make(chan int, 1)
	end := make(chan struct{})
	err := thread.Start(s.network.File(), func() {
		pid <- unix.Gettid()
		select {
		case <-end:
		case <-s.stopped:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("stand in for the container on the host: %w", err)
	}
	return &standIn{pid: <-pid, end: end}, nil
}

func (s *standIn) close(context.Context) error {
	close(s.end)
	return nil
}
