package hostcgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// Group is a cgroup on this host.
type Group struct {
	path    string // below each hierarchy
	manager cgroups.Manager
	origins map[string]string // where this process was before Enter, by controller
	entered map[string]string // the directories that Enter has made, by controller

	limiting sync.Mutex // held while limits are set
}

// Open returns the group of a cgroupsPath of the OCI specification, whether it
// exists or not. Neither form of a cgroupsPath is errdefs.ErrInvalidArgument.
func Open(cgroupsPath string) (*Group, error) {
	config, path, err := parse(cgroupsPath)
	if err != nil {
		return nil, err
	}
	config.Resources = newResources()
	m, err := manager.New(config)
	if err != nil {
		return nil, fmt.Errorf("find cgroup %s: %w", cgroupsPath, err)
	}
	return &Group{path: path, manager: m}, nil
}

// dirs are the directories of the group, by controller. Not all need exist: devices
// are not confined.
func (g *Group) dirs() map[string]string {
	dirs := maps.Clone(g.manager.GetPaths())
	maps.DeleteFunc(dirs, func(_, dir string) bool { return !cgroups.PathExists(dir) })
	return dirs
}

// Path is where the group is below each hierarchy.
func (g *Group) Path() string { return g.path }

// Enter makes the group unless it exists, with all controllers of the host, moves
// this process into it, and remembers where it was. What it starts from now on
// starts in the group, so that nothing is charged elsewhere. With v1 it stays out of
// the hierarchies that limit processor time, until [Group.EnterAll]. ctx bounds the
// wait for systemd. After an error nothing is left.
func (g *Group) Enter(ctx context.Context) error {
	origins, err := ownGroups()
	if err != nil {
		return err
	}
	g.origins = origins
	if err := within(ctx, func() error { return g.manager.Apply(os.Getpid()) }); err != nil {
		// A scope of that name may be another's, and must not be stopped.
		_ = g.Leave()
		g.RemoveEmpty()
		return fmt.Errorf("create and enter cgroup %s: %w", g.path, err)
	}
	g.entered = g.dirs()
	for controller := range g.entered {
		if g.limitsTime(controller) {
			if err := g.leave(controller); err != nil {
				return err
			}
		}
	}
	return nil
}

// within carries out what may wait for systemd, which has no limit of its own. What
// does not end in time goes on by itself.
func within(ctx context.Context, do func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// limitsTime reports whether a v1 hierarchy is one that limits processor time, or
// is mounted together with it.
func (g *Group) limitsTime(controller string) bool {
	switch controller {
	case "cpu", "cpuset":
		return true
	case "cpuacct":
		own, ownErr := os.Stat(g.manager.Path("cpuacct"))
		cpu, cpuErr := os.Stat(g.manager.Path("cpu"))
		return ownErr == nil && cpuErr == nil && os.SameFile(own, cpu)
	}
	return false
}

// EnterAll moves everything that is in the group, in any hierarchy, into all of
// them.
func (g *Group) EnterAll() error {
	moved := make(map[int]bool)
	for { // a process that starts another one meanwhile
		pids, err := g.Processes()
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return moved[pid] })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			for _, dir := range g.entered {
				if err := addTo(dir, pid); err != nil {
					return err
				}
			}
			moved[pid] = true
		}
	}
}

// Leave moves this process back, so that the group can be removed.
func (g *Group) Leave() error {
	var errs []error
	for controller := range g.dirs() {
		errs = append(errs, g.leave(controller))
	}
	return errors.Join(errs...)
}

// leave moves this process back in one hierarchy. Where it was may be gone: systemd
// removes the group of a containerd that was stopped. The root takes any process, but
// for that of a cgroup namespace, in which systemd keeps its own in init.scope.
func (g *Group) leave(controller string) error {
	origin, ok := g.origins[controller]
	if !ok {
		return nil // it was never here
	}
	top := strings.TrimSuffix(g.manager.GetPaths()[controller], g.path)
	var errs []error
	for _, place := range []string{origin, "/", "init.scope"} {
		err := addTo(filepath.Join(top, place), os.Getpid())
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Join moves a process into a group that somebody else has made.
func Join(cgroupsPath string, pid int) error {
	g, err := Open(cgroupsPath)
	if err != nil {
		return err
	}
	return g.Add(pid)
}

// Add moves a process into the group, in all hierarchies that have it. Without one it is
// errdefs.ErrNotFound.
func (g *Group) Add(pid int) error {
	dirs := g.dirs()
	if len(dirs) == 0 {
		return fmt.Errorf("cgroup %s: there is no such group on the host: %w", g.path, errdefs.ErrNotFound)
	}
	for _, dir := range dirs {
		if err := addTo(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// addTo moves a process into a group. One that has ended is not an error.
func addTo(dir string, pid int) error {
	err := cgroups.WriteCgroupProc(dir, pid) // tries again when a thread is just being made
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("move process %d into cgroup: %w", pid, err)
	}
	return nil
}

// ownGroups reads which groups this process is in: controller to path. The unified
// hierarchy is "".
func ownGroups() (map[string]string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find own cgroup: %w", err)
	}
	defer func() { _ = f.Close() }()
	groups := make(map[string]string)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3) // id:controllers:path
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			groups[controller] = parts[2]
		}
	}
	return groups, lines.Err()
}

// Has reports whether the host has a controller for the group, which this process
// has entered: "memory", "pids". Kernels can be without some of v1, and without others
// by their command line.
func (g *Group) Has(controller string) bool {
	if !cgroups.IsCgroup2UnifiedMode() {
		return g.manager.Path(controller) != ""
	}
	b, err := os.ReadFile(filepath.Join(g.manager.Path(""), "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// OOMKills is how many processes of the group the kernel has killed because they
// were out of memory; 0 where nothing bounds that.
func (g *Group) OOMKills() (uint64, error) {
	if !g.Has("memory") {
		return 0, nil
	}
	n, err := g.manager.OOMKillCount()
	if err != nil {
		return 0, fmt.Errorf("count oom kills: %w", err)
	}
	return n, nil
}

// Processes returns the pids of the processes in the group and below it, each once.
func (g *Group) Processes() ([]int, error) {
	var pids []int
	for _, dir := range g.dirs() {
		found, err := cgroups.GetAllPids(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // removed before or after the file was opened
		}
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup: %w", err)
		}
		pids = append(pids, found...)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Remove removes the group, with the scope that systemd has made for it. Parents
// that this leaves empty are left alone: they belong to others. A group that is gone
// is not an error. systemd may take its time, so ctx bounds the wait.
func (g *Group) Remove(ctx context.Context) error {
	if err := within(ctx, g.manager.Destroy); err != nil {
		pids, _ := g.Processes() // of those that are there
		return fmt.Errorf("remove cgroup %s: %w (processes: %v)", g.path, err, pids)
	}
	return nil
}

// RemoveEmpty removes the directories of the group that have no others in them, and
// no processes. Those that have stay.
func (g *Group) RemoveEmpty() { removeEmpty(g.dirs()) }

func removeEmpty(dirs map[string]string) {
	for _, dir := range dirs {
		_ = unix.Rmdir(dir) // busy is what it may be
	}
}
