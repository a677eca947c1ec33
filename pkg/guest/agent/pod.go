package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// shareDeadline bounds the wait for the share's hot-plugged device.
const shareDeadline = 10 * time.Second

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
		ts := unix.NsecToTimespec(req.Clock)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("set clock: %w", err)
		}
	}
	if req.Hostname != "" {
		if err := setHostname(req.Hostname); err != nil {
			return err
		}
	}
	for name, value := range req.Sysctls {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	if len(req.DNS) > 0 {
		conf := "nameserver " + strings.Join(req.DNS, "\nnameserver ") + "\n"
		if err := os.WriteFile("/etc/resolv.conf", []byte(conf), 0o644); err != nil {
			return fmt.Errorf("write resolver configuration: %w", err)
		}
	}
	if err := mountShm(req.ShmSize); err != nil {
		return err
	}
	if req.ShareDir == "" {
		return nil
	}
	return a.mountShare(ctx, req.ShareDir, req.ShareType)
}

// mountShm makes the shared memory of the pod's containers; size is in bytes.
func mountShm(size int64) error {
	if size == 0 {
		return nil
	}
	if err := os.MkdirAll(hyperstart.ShmMount, 0o755); err != nil {
		return fmt.Errorf("mount shared memory: %w", err)
	}
	data := fmt.Sprintf("mode=1777,size=%d", size)
	if err := unix.Mount("shm", hyperstart.ShmMount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "mount shared memory of %d bytes: %w", size, err)
	}
	return nil
}

func setHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "set hostname %q: %w", name, err)
	}
	if err := os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("write hostname: %w", err)
	}
	return nil
}

// setSysctl takes the name with dots or slashes. A slash within a component,
// as in an interface's name, is written as sysctl(8) does: the first separator
// decides which is which.
func setSysctl(name, value string) error {
	dot, slash := strings.IndexByte(name, '.'), strings.IndexByte(name, '/')
	if dot >= 0 && (slash < 0 || dot < slash) {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	if !filepath.IsLocal(name) {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "sysctl %q is not valid", name)
	}
	if err := kernfs.Write(filepath.Join("/proc/sys", name), value); err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "set sysctl %s to %q: %w", name, value, err)
	}
	return nil
}

// mountShare mounts the file system with the given tag. Its device may be
// plugged in only now.
func (a *Agent) mountShare(ctx context.Context, tag, kind string) error {
	data := ""
	switch kind {
	case "virtiofs":
	case "9p":
		// The size of a message is what 9p's throughput hangs on; this is the
		// largest that fits virtio's ring of 128 pages. Without cache=mmap no
		// file can be mapped for writing; nothing else is cached.
		data = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"
	default:
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "share type %q is neither virtiofs nor 9p", kind)
	}
	if err := await(ctx, a.shareable); err != nil {
		return err
	}
	if err := os.MkdirAll(hyperstart.ShareMount, 0o755); err != nil {
		return fmt.Errorf("mount share: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, shareDeadline)
	defer cancel()
	var last error
	err := a.events.Wait(ctx, func() (bool, error) {
		last = unix.Mount(tag, hyperstart.ShareMount, kind, unix.MS_NODEV, data)
		switch {
		case last == nil:
			return true, nil
		case errors.Is(last, unix.ENODEV):
			return false, hyperstart.Errorf(hyperstart.ClassNotImplemented, "mount share: this guest's kernel has no %s", kind)
		case errors.Is(last, unix.EINVAL), errors.Is(last, unix.ENOENT):
			return false, nil // no device with this tag yet
		}
		return false, fmt.Errorf("mount share %s: %w", tag, last)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return hyperstart.Errorf(hyperstart.ClassUnavailable, "mount share: no %s device with tag %s after %v: %w", kind, tag, shareDeadline, last)
	}
	return err
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
	if err := a.port.setBlocking(); err != nil {
		console.Logf("destroy pod: %v", err)
	}
	time.AfterFunc(ackGrace, console.PowerOff)
	return nil, nil
}

// rescan makes the kernel look for plugged devices, for machines that do not
// announce them.
func (a *Agent) rescan(context.Context, []byte) ([]byte, error) {
	const path = "/sys/bus/pci/rescan"
	if err := kernfs.Write(path, "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("rescan pci: %w", err)
	}
	return nil, nil
}
