package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// podState is where the pod is in its life.
type podState uint8

// The states. A start that fails leads back to podNew.
const (
	podNew podState = iota
	podStarting
	podStarted
	podDestroyed
)

// String returns what an error message says of the pod.
func (s podState) String() string {
	switch s {
	case podNew:
		return "not started"
	case podStarting:
		return "being started"
	case podStarted:
		return "already started"
	case podDestroyed:
		return "destroyed"
	}
	return fmt.Sprintf("in state %d", uint8(s))
}

// pod is what all containers share.
type pod struct {
	mu    sync.Mutex // guards state
	state podState
}

// claim moves from one state to another.
func (p *pod) claim(from, to podState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == from {
		p.state = to
		return nil
	}
	class := hyperstart.ClassFailedPrecondition
	if from == podNew && p.state == podStarted {
		class = hyperstart.ClassAlreadyExists
	}
	return hyperstart.Errorf(class, "pod is %s", p.state)
}

func (a *Agent) getVersion(context.Context, []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2), nil
}

// podReady fails before STARTPOD.
func (a *Agent) podReady(ctx context.Context) error {
	if err := a.ready(ctx); err != nil {
		return err
	}
	return a.pod.claim(podStarted, podStarted)
}

// startPod sets up what the containers share. After an error it can be tried
// again.
func (a *Agent) startPod(ctx context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.StartPodRequest](payload)
	if err != nil {
		return nil, err
	}
	if len(req.Interfaces)+len(req.Routes) > 0 {
		return nil, hyperstart.Errorf(hyperstart.ClassNotImplemented, "interfaces and routes are not implemented by this guest")
	}
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	if err := a.pod.claim(podNew, podStarting); err != nil {
		return nil, err
	}
	if err := a.setUpPod(ctx, &req); err != nil {
		return nil, errors.Join(fmt.Errorf("start pod: %w", err), a.pod.claim(podStarting, podNew))
	}
	return nil, a.pod.claim(podStarting, podStarted)
}

func (a *Agent) setUpPod(ctx context.Context, req *hyperstart.StartPodRequest) error {
	if req.Clock != 0 {
		if err := machine.SetClock(req.Clock); err != nil {
			return err
		}
	}
	if req.Hostname != "" {
		if err := machine.SetHostname(req.Hostname); err != nil {
			return err
		}
	}
	for name, value := range req.Sysctls {
		if err := machine.SetSysctl(name, value); err != nil {
			return err
		}
	}
	if len(req.DNS) > 0 {
		if err := machine.SetNameservers(req.DNS); err != nil {
			return err
		}
	}
	if err := machine.MountShm(req.ShmSize); err != nil {
		return err
	}
	if req.ShareDir == "" {
		return nil
	}
	return a.machine.MountShare(ctx, req.ShareDir, req.ShareType)
}

// ackGrace is how long a power-off waits for the host to take the ACK.
const ackGrace = 2 * time.Second

// destroyPod kills the containers and writes back all data. The ACK follows,
// and then the guest is powered off by the mux's final function.
func (a *Agent) destroyPod(ctx context.Context, _ []byte) ([]byte, error) {
	a.pod.mu.Lock()
	a.pod.state = podDestroyed // nothing new from here on
	a.pod.mu.Unlock()
	if err := a.ready(ctx); err == nil {
		if err := cgroups.Group(layout.CgroupBase).Kill(); err != nil {
			console.Logf("destroy pod: %v", err)
		}
	}
	unix.Sync()
	// The host must get the ACK before the devices go; a host that has gone
	// must not keep the guest alive.
	if err := a.port.SetBlocking(); err != nil {
		console.Logf("destroy pod: %v", err)
	}
	time.AfterFunc(ackGrace, console.PowerOff)
	return nil, nil
}

func (a *Agent) rescan(context.Context, []byte) ([]byte, error) {
	return nil, machine.RescanPCI()
}
