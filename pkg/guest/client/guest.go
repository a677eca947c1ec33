package client

import (
	"context"
	"io"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Guest is the agent of one pod. [Dial] returns the implementation for what it
// speaks; guesttest has one in memory. All methods are safe for concurrent use.
//
// What a guest lacks is errdefs.ErrNotImplemented. All errors have the class
// that the guest gave them.
type Guest interface {
	// StartPod prepares the guest. Interfaces and routes come before it.
	StartPod(ctx context.Context, pod Pod) error
	// StopPod asks the guest to write its data and to power off. With synced
	// the data was written when it returns; otherwise it is when the VM has ended.
	StopPod(ctx context.Context) (synced bool, err error)
	// Sync returns when all events that the guest sent before have arrived.
	Sync(ctx context.Context) error
	// SetInterface configures the interface with the MAC address of i. Before
	// StartPod the order of the calls is that of the devices.
	SetInterface(ctx context.Context, i hyperstart.Interface) error
	// SetRoutes replaces all routes and neighbors.
	SetRoutes(ctx context.Context, r hyperstart.Routes) error

	// OpenSession returns a session for a process that is to be created. The
	// caller closes it.
	OpenSession(ctx context.Context) (Session, error)
	// CreateContainer creates a container, whose init process does not run
	// yet and gets the session. On error the container is not in the guest, or
	// will be removed by the client as soon as it is.
	CreateContainer(ctx context.Context, s Session, c Container) error
	// StartContainer starts the init process. It is not undone when ctx ends.
	StartContainer(ctx context.Context, id string) error
	// RemoveContainer frees what the guest keeps of a container that has exited
	// or was never started.
	RemoveContainer(ctx context.Context, id string) error
	// Exec starts an exec process, which gets the session. On error it does
	// not run, or will be killed by the client as soon as it does.
	Exec(ctx context.Context, s Session, e Exec) error
	// Signal sends a signal. s is the session of the process that t names.
	Signal(ctx context.Context, s Session, t Target, signal int) error

	// Update replaces the resources of a container.
	Update(ctx context.Context, id string, resources *specs.LinuxResources) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Stats(ctx context.Context, id string) (*hyperstart.Stats, error)
	Processes(ctx context.Context, id string) ([]ProcessInfo, error)

	// Dialect is what the guest speaks, for logs only.
	Dialect() hyperstart.Dialect
	// Close joins what the client still does in the guest. It is called after
	// the server was closed, or ends what is under way.
	Close() error
}

// Forwarder is what a guest is beside [Guest] when it can forward connections.
type Forwarder interface {
	// Forward connects the session to a TCP port of the guest's loopback: stdin
	// and stdout are the connection's two directions, and an exit status other
	// than 0 is a connection that was reset. Signal with SIGKILL and the zero
	// Target resets it.
	Forward(ctx context.Context, s Session, port uint16) error
}

// Beneath is what a guest is beside [Guest] when it resolves a path below a mount
// of the share beneath that mount, without following links, which containers may
// put there.
type Beneath interface{ ResolvesBeneath() bool }

// ResolvesBeneath reports whether g is [Beneath].
func ResolvesBeneath(g Guest) bool {
	b, ok := g.(Beneath)
	return ok && b.ResolvesBeneath()
}

// Clock is what a guest is beside [Guest] when its clock can be set.
type Clock interface {
	// AdjustClock changes the guest's clock, and returns what it says afterwards.
	AdjustClock(ctx context.Context, a hyperstart.AdjustClockRequest) (time.Time, error)
}

// Resolver is what a guest is beside [Guest] when it passes on questions to name servers
// of the host.
type Resolver interface {
	// RelayDNS makes questions to port 53 of the addresses [Events.DNS]. It adds to those
	// of earlier calls.
	RelayDNS(ctx context.Context, r hyperstart.RelayDNSRequest) error
	// AnswerDNS answers a question, by its id. One that nobody waits for is not an error.
	AnswerDNS(ctx context.Context, a hyperstart.DNSMessage) error
}

// Session is one process's streams and exit.
type Session interface {
	Stdout() Stream
	Stderr() Stream
	// WriteStdin copies r to the process's stdin until r ends, the process exits
	// or ctx is done. It does not close the stdin.
	WriteStdin(ctx context.Context, r io.Reader) error
	// CloseStdin closes the process's stdin after all that was written.
	CloseStdin() error
	// Resize sets the size of the process's terminal in characters.
	Resize(ctx context.Context, rows, columns int) error
	// Done is closed when the process has exited or the session is lost. Output
	// that came before may still wait in Stdout and Stderr.
	Done() <-chan struct{}
	// Exit returns the exit status, or why there is none. It is valid once Done
	// is closed.
	Exit() (status uint8, err error)
	// Close disconnects the session. It is idempotent.
	Close() error
}

// Stream is one output stream of a process.
type Stream interface {
	// WriteTo copies the stream to w until the stream ends. After an error of w
	// nothing more is read, and the process blocks once the window is full.
	WriteTo(w io.Writer) (int64, error)
	// Discard reads the stream to its end and drops it.
	Discard()
}

// Pod is what a guest needs to know of its pod.
type Pod struct {
	Hostname  string // "" for "localhost"
	DNS       []string
	ShareType string // "virtiofs" or "9p"
	// Sysctls are set in the guest itself, whose namespaces its containers share.
	Sysctls map[string]string
	ShmSize int64 // of the pod's /dev/shm in bytes, 0 for none
}

// Container is a container to be created.
type Container struct {
	ID string
	// Spec is the OCI specification with paths of the guest. It is not changed.
	Spec     *specs.Spec
	Terminal bool
	// Binds are the bind mounts of Spec whose source is in the share, for
	// guests that do not read specifications.
	Binds []Bind
	// Disks are the block devices of Spec that were plugged for it.
	Disks []hyperstart.Disk
	// Memory is the volumes of Spec that the guest has in its memory.
	Memory []hyperstart.MemoryVolume
	// Pause is set for the container of a pod that does nothing, SharesIPC for one of its pod's, or the host's, IPC namespace.
	Pause, SharesIPC bool
	// FindProgram, when set, tells [CannotRun] of a program in the container's files, for guests that do not.
	FindProgram func(context.Context, *specs.Process) error
}

// Bind is a file or directory of the share in a container.
type Bind struct {
	Source      string // path below the share
	Destination string // path in the container
	ReadOnly    bool
}

// Exec is an exec process to be started.
type Exec struct {
	Container string         // "" for a program of the guest itself
	ID        string         // exec id
	Process   *specs.Process // is not changed
	Terminal  bool
}

// Target is what a signal goes to.
type Target struct {
	Container string
	ExecID    string // "" for the init process
	All       bool   // every process of the container; ExecID is ""
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID    int    // in the guest's root pid namespace
	ExecID string // "" for the init process and for descendants
	Init   bool   // the init process
	// What /proc in the guest says, which may be anything; all "" and 0 when it says
	// nothing.
	Name     string
	Args     []string
	UID, GID uint32
}

// Events are callbacks for what the guest reports by itself. They must not
// block, and each may be nil. A guest may claim anything: ids need not exist.
type Events struct {
	// OOM says that the kernel killed a process of the container because its
	// memory limit was reached. It precedes the exit of the process.
	OOM func(container string)
	// Exited says that a process has exited whose output the host does not
	// read, or whose streams descendants keep open. Its session ends later.
	Exited func(container, execID string, status uint8)
	// DNS gets questions for the servers of [Resolver].
	DNS func(question hyperstart.DNSMessage)
	// Lost is called once, when the connection to the guest has ended.
	Lost func(err error)
}
