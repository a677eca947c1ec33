package reclaim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/mounts"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Timeout is how long releasing everything may take: containerd allows the
// delete command 5 s in all.
const Timeout = 4 * time.Second

// Sandbox releases everything that the sandbox of a directory has acquired:
// processes, cgroup, network, mounts, directories. It works from disk alone and
// is idempotent. All parts are tried; the error names those that failed.
func Sandbox(ctx context.Context, d store.Dir) error {
	path := d.Path()
	if err := mounts.CheckRoot(path); err != nil {
		return err
	}
	var errs []error
	state, err := d.Load()
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		errs = append(errs, err) // mounts and files are found without the record
	}
	processes := state.Processes
	if spare, ok := d.Spare(); ok {
		processes = append(processes, spare)
	}
	for _, p := range processes {
		errs = append(errs, p.Kill(ctx))
	}
	if state.Cgroup != "" {
		errs = append(errs, removeCgroup(ctx, state))
	}
	if state.NetNS != "" {
		errs = append(errs, network.Cleanup(state.NetNS, state.NetNSCookie))
	}
	if err := mounts.Unmount(path); err != nil {
		// What is still mounted must not be deleted: it is user data.
		return errors.Join(append(errs, err)...)
	}
	if err == nil {
		if err := d.Retire(state); err != nil { // a history is no reason to fail what was released
			log.G(ctx).WithError(err).Warn("what has happened in the sandbox is lost with it")
		}
	}
	errs = append(errs, mounts.RemoveTree(path))
	_ = os.Remove(filepath.Dir(path)) // the namespace's directory, when it is empty
	return errors.Join(errs...)
}

// removeCgroup ends what is left in the cgroup, such as a helper of a process
// that was killed, and removes it. The kernel takes a process out of its cgroup
// a moment before or after its end can be seen, so a busy group is tried again.
func removeCgroup(ctx context.Context, s store.State) error {
	group, err := hostcgroup.Open(s.Cgroup)
	if err != nil {
		return err
	}
	const step = 10 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		if err := killAll(ctx, group); err != nil {
			return err
		}
		err := group.Remove(ctx)
		if err == nil {
			removeNamespaceCgroup(s.Namespace, group.Path())
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// killAll ends the processes of a group, except this one.
func killAll(ctx context.Context, group *hostcgroup.Group) error {
	pids, err := group.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue // a shim that could not leave; the removal says so
		}
		p, err := hostproc.Of("process of the sandbox", pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		if err := p.Kill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// removeNamespaceCgroup removes the group that containerd's clients put the
// groups of a namespace into, when this was the last one. Nobody else makes or
// limits it; the group of a pod is never touched, it is the kubelet's.
func removeNamespaceCgroup(namespace, path string) {
	parent := filepath.Dir(path)
	if namespace == "" || parent != "/"+namespace {
		return
	}
	if group, err := hostcgroup.Open(parent); err == nil {
		group.RemoveEmpty() // it is not while another sandbox is there
	}
}
