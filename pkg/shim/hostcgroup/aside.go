package hostcgroup

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Aside is the group of VMs that are no sandbox's: those that are kept ready, and those that
// a template is made of. It stands at the top, so that what they use is charged to none of the
// groups that others limit. All that make some on a host have the same one, and any of them may
// find it gone, or full again. It belongs to one caller at a time.
type Aside struct {
	// Shares are those of processor time where the unified hierarchy has it, of which 1024 are
	// usual; 0 for a tenth of that. With v1 the group has no part in that.
	Shares uint64

	at      string // cgroupsPath, for tests; "" for the host's
	entered *Group // nil while this process is not in it
}

// path is where such VMs are: a group at the top, or a scope of systemd there.
func (a *Aside) path() string {
	switch {
	case a.at != "":
		return a.at
	case systemd.IsRunningSystemd():
		return "-.slice:ccv2:spare"
	default:
		return "/ccv2-spare"
	}
}

const (
	// asideTries bounds how often the group may go, as the last one leaves it, while this process enters.
	asideTries = 5
	// asideShares are a tenth of what others have.
	asideShares = 102
	// asideTimeout bounds the wait for systemd.
	asideTimeout = 20 * time.Second
)

// Enter moves this process into the group, which is made unless it is there, until
// [Aside.Leave]: what it starts, and the memory that it takes, counts there. ctx bounds the wait
// for systemd, beside a limit of its own.
func (a *Aside) Enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	g, err := Open(a.path())
	if err != nil {
		return err
	}
	for range asideTries {
		if err = enterShared(ctx, g); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	a.entered = g
	if !cgroups.IsCgroup2UnifiedMode() || !g.Has("cpu") {
		return nil
	}
	shares := a.Shares
	if shares == 0 {
		shares = asideShares
	}
	if err := g.Limit(ctx, Limits{CPU: &specs.LinuxCPU{Shares: &shares}}); err != nil {
		return errors.Join(err, a.Leave())
	}
	return nil
}

// enterShared enters a group that others may have made, and may remove.
func enterShared(ctx context.Context, g *Group) error {
	err := g.Enter(ctx)
	if err == nil || !g.scope() {
		return err
	}
	// A scope cannot be made twice.
	if joined := within(ctx, func() error { return g.manager.AddPid("", os.Getpid()) }); joined != nil {
		return errors.Join(err, joined)
	}
	return nil
}

// scope reports whether systemd makes the group, and removes it.
func (g *Group) scope() bool {
	c, err := g.manager.GetCgroups()
	return err == nil && c.Systemd
}

// Leave moves this process back, and removes the group unless others are in it.
func (a *Aside) Leave() error {
	if a.entered == nil {
		return nil
	}
	err := a.entered.Leave()
	a.entered = nil
	a.RemoveEmpty()
	return err
}

// Quit moves this process, which was started in the group, to the top, and removes the group unless
// others are in it. That of systemd goes with its last process.
func (a *Aside) Quit() error {
	g, err := Open(a.path())
	if err != nil || g.scope() {
		return err
	}
	own, err := ownGroups()
	if err != nil {
		return err
	}
	g.origins = map[string]string{}
	for controller := range g.dirs() {
		if own[controller] == g.path {
			g.origins[controller] = "/"
		}
	}
	err = g.Leave()
	a.RemoveEmpty()
	return err
}

// Processes are those in the group.
func (a *Aside) Processes() ([]int, error) {
	g, err := Open(a.path())
	if err != nil {
		return nil, err
	}
	return g.Processes()
}

// A process may be in its group until a moment after its end.
const (
	emptyTries = 100
	emptyAfter = 10 * time.Millisecond
)

// RemoveEmpty removes the group unless somebody is in it. What cannot be removed is left for the
// next one that does it.
func (a *Aside) RemoveEmpty() {
	g, err := Open(a.path())
	if err != nil {
		return
	}
	tick := time.NewTicker(emptyAfter)
	defer tick.Stop()
	for range emptyTries {
		dirs := g.dirs()
		if g.scope() { // where systemd has it, it would take one without its directory for one with processes
			maps.DeleteFunc(dirs, func(controller, _ string) bool { return controller == "" || controller == "name=systemd" })
		}
		removeEmpty(dirs)
		if pids, err := g.Processes(); err != nil || len(pids) > 0 || gone(dirs) {
			return
		}
		<-tick.C
	}
}

// gone reports whether none of some directories is there.
func gone(dirs map[string]string) bool {
	for _, dir := range dirs {
		if cgroups.PathExists(dir) {
			return false
		}
	}
	return true
}

// hybridRoot is where the unified hierarchy is beside those of v1.
const hybridRoot = "/sys/fs/cgroup/unified"

// Inherit moves a process to where this one is, in each hierarchy, as if this one had started
// it. What it has used of memory stays charged to where it was.
func (a *Aside) Inherit(pid int) error {
	g, err := Open(a.path())
	if err != nil {
		return err
	}
	own, err := ownGroups()
	if err != nil {
		return err
	}
	for controller, dir := range g.manager.GetPaths() {
		place, ok := own[controller]
		if !ok {
			continue
		}
		if err := addTo(filepath.Join(strings.TrimSuffix(dir, g.path), place), pid); err != nil {
			return err
		}
	}
	place, ok := own[""]
	if !ok || cgroups.IsCgroup2UnifiedMode() || !cgroups.PathExists(hybridRoot) {
		return nil
	}
	return addTo(filepath.Join(hybridRoot, place), pid)
}
