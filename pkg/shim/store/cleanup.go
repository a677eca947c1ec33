package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/network"
)

// Remove gives back everything that a sandbox has taken: processes, cgroup,
// mounts, directories. It works from disk alone, and doing it again is no
// error. All parts are tried; the error names those that failed.
func (d Dir) Remove(ctx context.Context) error {
	if err := checkRoot(d.path); err != nil {
		return err
	}
	var errs []error
	state, err := d.Load()
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		errs = append(errs, err) // mounts and files are found without the record
	}
	for _, p := range state.Processes {
		errs = append(errs, p.Kill(ctx))
	}
	if state.Cgroup != "" {
		errs = append(errs, removeCgroup(ctx, state.Cgroup))
		removeNamespaceCgroup(state)
	}
	if state.NetNS != "" {
		errs = append(errs, network.Cleanup(state.NetNS))
	}
	if err := Unmount(d.path); err != nil {
		// What is still mounted must not be deleted: it is somebody's data.
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, RemoveTree(d.path))
	_ = os.Remove(filepath.Dir(d.path)) // the namespace's directory, when it is empty
	return errors.Join(errs...)
}

// removeCgroup ends what is left in the cgroup, such as a helper of a process
// that was killed, and removes it. The kernel takes a process out of its cgroup
// a moment before or after its end can be seen, so a busy group is tried again.
func removeCgroup(ctx context.Context, path string) error {
	group, err := hostcgroup.Open(path)
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
		err := group.Remove()
		if !errors.Is(err, unix.EBUSY) {
			return err
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
func removeNamespaceCgroup(s State) {
	parent := filepath.Dir(s.Cgroup)
	if s.Namespace == "" || parent != "/"+s.Namespace {
		return
	}
	if group, err := hostcgroup.Open(parent); err == nil {
		_ = group.Remove() // it is not empty while another sandbox is there
	}
}

// checkRoot refuses paths that can only come from a damaged record: "" and "/"
// stand for the whole host.
func checkRoot(dir string) error {
	if clean := filepath.Clean(dir); !filepath.IsAbs(clean) || clean == "/" {
		return fmt.Errorf("clean up %q: not a directory of a sandbox: %w", dir, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Unmount detaches every mount at and below dir, and returns nil only when none
// is left. No mount is no error.
//
// Only mounts that are not below another one are named to the kernel, which
// takes those below with them: the way to a mount below a volume leads through
// the volume, where the guest could put a link into it.
func Unmount(dir string) error { return UnmountListed(dir, mountinfo.GetMounts) }

// UnmountListed is [Unmount] for a thread whose mounts list returns.
func UnmountListed(dir string, list func(mountinfo.FilterFunc) ([]*mountinfo.Info, error)) error {
	if err := checkRoot(dir); err != nil {
		return err
	}
	const spare = 3 // mounts may come to light, or appear, while this runs
	for round, most := 0, spare; round < most; round++ {
		mounts, err := list(mountinfo.PrefixFilter(dir))
		if err != nil {
			return fmt.Errorf("list mounts of %s: %w", dir, err)
		}
		if len(mounts) == 0 {
			return nil
		}
		if round == 0 {
			most += len(mounts) // of several at one place a round takes one
		}
		if err := detach(topmost(mounts)); err != nil {
			return err
		}
	}
	return fmt.Errorf("unmount %s: mounts keep appearing", dir)
}

// topmost returns the mounts that are not below another one of them.
func topmost(mounts []*mountinfo.Info) []*mountinfo.Info {
	ids := make(map[int]bool, len(mounts))
	for _, m := range mounts {
		ids[m.ID] = true
	}
	return slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool { return ids[m.Parent] })
}

func detach(mounts []*mountinfo.Info) error {
	var errs []error
	for _, m := range mounts {
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
