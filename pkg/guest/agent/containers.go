package agent

import (
	"context"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/cgroups"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/shared"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/streams"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Runtime starts processes and containers. Package ociruntime has the one of a
// guest, and ociruntime/fake one for tests.
type Runtime interface {
	Create(ctx context.Context, c ociruntime.Container, program string, io ociruntime.IO) (*ociruntime.Child, error)
	Exec(ctx context.Context, c ociruntime.Container, id string, spec *specs.Process, io ociruntime.IO) (*ociruntime.Child, error)
	Spawn(cgroup string, args []string, io ociruntime.IO) (*ociruntime.Child, error)
	Run(cgroup string, spec *specs.Process, io ociruntime.IO) (*ociruntime.Child, error)
	Start(ctx context.Context, c ociruntime.Container) error
	Pause(ctx context.Context, c ociruntime.Container) error
	Resume(ctx context.Context, c ociruntime.Container) error
	Update(ctx context.Context, c ociruntime.Container, resources *specs.LinuxResources) error
	Delete(ctx context.Context, c ociruntime.Container, force bool) error
}

// Group is the control group of a container.
type Group interface {
	Kill() error
	Signal(sig unix.Signal) error
	PIDs() ([]int, error)
	Stats() (*hyperstart.Stats, error)
	Remove() error
}

// drivers are those of the guest's kernel, of which some are loaded for the
// containers that need them.
type drivers interface {
	HasCharDevice(major, minor int64) bool
	FindDisk(ctx context.Context, serial string) (major, minor int64, err error)
	LoadIptables()
	LoadLate()
}

// containers is the containers of the pod and the commands about them.
type containers struct {
	runtime  Runtime
	drivers  drivers
	tty      *streams.Port
	oom      *cgroups.OOMWatcher
	huge     *cgroups.HugePages
	shared   *shared.Table
	bundles  string // one directory per container
	cgroups  string // parent of the containers' control groups
	root     string // of the control groups
	newGroup func(path string) Group
	// podReady fails before STARTPOD.
	podReady func(context.Context) error
	// notify sends an event to the host.
	notify func(hyperstart.EventMessage)

	// background is the goroutines that report the ends of processes and load
	// drivers.
	background sync.WaitGroup

	mu    sync.Mutex            // guards table
	table map[string]*container // by id
}

// idPattern is containerd's rule for identifiers; ids become file names here.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkID(kind, id string) error {
	if !idPattern.MatchString(id) {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "%s id %q is not valid", kind, id)
	}
	return nil
}

// guestItself is the id of what stands for the guest among containers: processes that
// are in none belong to it.
const guestItself = ""

// placeOf returns a container by id, or what stands for the guest itself.
func placeOf(s *containers, id string) (*container, error) {
	if id != guestItself {
		return s.find(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table == nil {
		s.table = map[string]*container{}
	}
	if s.table[id] == nil {
		s.table[id] = &container{owner: s, cgroup: s.root, state: stateRunning, procs: map[string]*process{}}
	}
	return s.table[id], nil
}

// find returns a container by id.
func (s *containers) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.table[id]
	if !ok || id == guestItself {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "no container %s", id)
	}
	return c, nil
}

// reserve adds a container in state creating.
func (s *containers) reserve(id string) (*container, error) {
	if err := checkID("container", id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.table[id]; ok {
		return nil, hyperstart.Errorf(hyperstart.ClassAlreadyExists, "container %s exists", id)
	}
	cgroup := filepath.Join(s.cgroups, id)
	c := &container{
		id: id, owner: s, cgroup: cgroup, group: s.newGroup(cgroup),
		oci: ociruntime.Container{ID: id, Bundle: filepath.Join(s.bundles, id)}, procs: map[string]*process{},
	}
	if s.table == nil {
		s.table = map[string]*container{}
	}
	s.table[id] = c
	return c, nil
}

// release frees the id of a container.
func (s *containers) release(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.table, c.id)
}

func (s *containers) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*container, 0, len(s.table))
	for _, c := range s.table {
		all = append(all, c)
	}
	return all
}
