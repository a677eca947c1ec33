package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// podReady fails before STARTPOD.
func (a *Agent) podReady(ctx context.Context) error {
	if err := a.ready(ctx); err != nil {
		return err
	}
	return a.pod.started()
}

// startPod sets up what the containers share. After an error it can be tried
// again.
func (a *Agent) startPod(ctx context.Context, req original.StartPod) error {
	if err := req.Refuse(); err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	if err := a.pod.to(podStarting); err != nil {
		return err
	}
	if err := a.setUpPod(ctx, &req.StartPodRequest); err != nil {
		return errors.Join(fmt.Errorf("start pod: %w", err), a.pod.to(podNew))
	}
	return a.pod.to(podStarted)
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
	if err := a.setUpNetwork(ctx, req); err != nil {
		return err
	}
	if req.ShareDir == "" {
		return nil
	}
	kind := req.ShareType
	if kind == "" {
		kind = "9p" // all that original hosts have
	}
	return a.machine.MountShare(ctx, req.ShareDir, kind)
}

// ackGrace is how long a power-off waits for the host to take the ACK.
const ackGrace = 2 * time.Second

// destroyPod kills the containers and writes back all data. The ACK follows,
// and then the guest is powered off by the mux's final function.
func (a *Agent) destroyPod(ctx context.Context) error {
	if err := a.pod.to(podDestroyed); err != nil { // nothing new from here on
		return err
	}
	if err := a.ready(ctx); err == nil {
		if err := cgroups.Group(layout.CgroupBase).Kill(); err != nil {
			console.Logf("destroy pod: %v", err)
		}
	}
	unix.Sync()
	// The host must get the ACK before the devices go; a host that does not take
	// it must not keep the guest alive.
	if err := a.port.SetBlocking(); err != nil {
		console.Logf("destroy pod: %v", err)
	}
	time.AfterFunc(ackGrace, console.PowerOff)
	return nil
}
