package fake

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Group is the control group of a container of a [Runtime].
type Group struct {
	r         *Runtime
	container string
}

// Group returns the control group of the container whose id is the last part of
// the path.
func (r *Runtime) Group(path string) *Group {
	return &Group{r: r, container: filepath.Base(path)}
}

// Kill kills all processes.
func (g *Group) Kill() error { return g.Signal(unix.SIGKILL) }

// Signal sends a signal to all processes.
func (g *Group) Signal(sig unix.Signal) error {
	for _, p := range g.r.all(g.container) {
		_ = p.Signal(sig) // one that has ended is not in the group
	}
	return nil
}

// PIDs lists the processes.
func (g *Group) PIDs() ([]int, error) {
	var pids []int
	for _, p := range g.r.all(g.container) {
		if !p.ended() {
			pids = append(pids, p.PID)
		}
	}
	return pids, nil
}

// Stats returns how many processes there are.
func (g *Group) Stats() (*hyperstart.Stats, error) {
	pids, err := g.PIDs()
	return &hyperstart.Stats{PIDsCurrent: uint64(len(pids))}, err
}

// Remove fails as long as there are processes.
func (g *Group) Remove() error {
	if pids, err := g.PIDs(); err != nil || len(pids) > 0 {
		return unix.EBUSY
	}
	return nil
}
