package hyperstart

import "encoding/json"

// Payloads of the ccv2 dialect.

// ShareMount is where the agent mounts the shared file system in the guest.
const ShareMount = "/run/ccv2/shared"

// ShmMount is where the agent mounts the pod's shared memory in the guest.
const ShmMount = "/run/ccv2/shm"

// LiveVolumes is the directory of the share with volumes that the host changes while
// containers watch them: the guest gives the containers a copy, and keeps it up to date
// (REFRESHVOLUME). They have the layout that a kubelet gives them: a link "..data" to a directory
// whose name is never used again, and links to what is in it.
const LiveVolumes = ".live"

// MemoryMount is the directory of the guest with the pod's volumes in memory, each at its
// name.
const MemoryMount = "/run/ccv2/memory"

// MemoryVolume is a volume that the guest has in its memory, from the first container
// that mounts it to the end of the pod. What it says is about a volume that is not there yet.
type MemoryVolume struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // in bytes
	Mode uint32 `json:"mode"` // of its directory
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// InitProcess is the process id of a container's init process.
const InitProcess = "init"

// EventKind is the kind of an [EventMessage].
type EventKind string

// Events of the guest.
const (
	// EventOOM says that the kernel killed a process of the container because
	// its memory limit was reached. It precedes the exit of the process.
	EventOOM EventKind = "oom"
	// EventExited says that a process has ended whose output the host does not
	// take, or whose streams descendants keep open. The end comes on the tty port
	// as well, after the output.
	EventExited EventKind = "exited"
	// EventDNS has a question to a name server of RELAYDNS.
	EventDNS EventKind = "dns"
	// EventLog has what the agent logs, for a host that has sent an activity: others do not know it.
	EventLog EventKind = "log"
)

// EventMessage is the payload of EVENT.
type EventMessage struct {
	Kind      EventKind `json:"kind"`
	Container string    `json:"container,omitempty"`
	// Process and Status are those of EventExited.
	Process string `json:"process,omitempty"`
	Status  uint8  `json:"status,omitempty"`
	// DNS is that of EventDNS, Log that of EventLog.
	DNS *DNSMessage `json:"dns,omitempty"`
	Log *LogMessage `json:"log,omitempty"`
}

// RelayDNSRequest is the payload of RELAYDNS: IPv4 addresses of the loopback, where
// name servers of the host are.
type RelayDNSRequest struct {
	Servers []string `json:"servers"`
}

// DNSMessage is a question of the guest, or the payload of ANSWERDNS.
type DNSMessage struct {
	ID      uint64 `json:"id"`               // of the question; the guest counts them
	Server  string `json:"server,omitempty"` // which is asked
	TCP     bool   `json:"tcp,omitempty"`
	Message []byte `json:"message"` // of RFC 1035, without a length
}

// UpdateContainerRequest is the payload of UPDATECONTAINER.
type UpdateContainerRequest struct {
	Container string `json:"container"`
	// Resources is LinuxResources of the OCI runtime specification.
	Resources json.RawMessage `json:"resources"`
}

// ProcessInfo is one process of a container.
type ProcessInfo struct {
	PID int `json:"pid"` // in the guest's root pid namespace
	// Process is the id that the process was created with; "" for descendants.
	Process string   `json:"process,omitempty"`
	Name    string   `json:"name,omitempty"` // comm in /proc
	Args    []string `json:"args,omitempty"` // cut after 4 KiB
	UID     uint32   `json:"uid,omitempty"`  // in the guest's root user namespace, as GID
	GID     uint32   `json:"gid,omitempty"`
}

// ProcessList is the answer to LISTPROCESSES.
type ProcessList struct {
	Processes []ProcessInfo `json:"processes"`
}

// Stats is the answer to STATSCONTAINER: the files of the container's cgroup.
// Limits are 0 when there is none ("max").
type Stats struct {
	CPU           map[string]uint64 `json:"cpu"`    // cpu.stat, times in microseconds
	Memory        map[string]uint64 `json:"memory"` // memory.stat, bytes and counts
	MemoryCurrent uint64            `json:"memoryCurrent"`
	MemoryMax     uint64            `json:"memoryMax"`
	MemoryPeak    uint64            `json:"memoryPeak"`
	SwapCurrent   uint64            `json:"swapCurrent"`
	SwapMax       uint64            `json:"swapMax"`
	MemoryEvents  map[string]uint64 `json:"memoryEvents"` // memory.events
	PIDsCurrent   uint64            `json:"pidsCurrent"`
	PIDsMax       uint64            `json:"pidsMax"`
	IO            []IOStats         `json:"io,omitempty"` // io.stat
}

// IOStats is one line of io.stat.
type IOStats struct {
	Major  uint64 `json:"major"`
	Minor  uint64 `json:"minor"`
	RBytes uint64 `json:"rbytes"`
	WBytes uint64 `json:"wbytes"`
	RIOs   uint64 `json:"rios"`
	WIOs   uint64 `json:"wios"`
}

// DumpStacksRequest is the payload of DUMPSTACKS, which may be missing.
type DumpStacksRequest struct {
	// Kernel asks for the tasks of the kernel, in place of the agent's goroutines.
	Kernel bool `json:"kernel,omitempty"`
}

// GuestInfoReply is the answer to GUESTINFO.
type GuestInfoReply struct {
	Kernel       string `json:"kernel"`       // release, as uname -r prints it
	AgentVersion string `json:"agentVersion"` // of the agent binary
	AgentRSS     uint64 `json:"agentRSS"`     // bytes
	MemTotal     uint64 `json:"memTotal"`     // bytes
	MemAvailable uint64 `json:"memAvailable"` // bytes
	// BootMillis is the guest's uptime when the agent was ready.
	BootMillis int64 `json:"bootMillis"`
}

// AdjustClockRequest is the payload of ADJUSTCLOCK. It says by how much the guest's
// clock is behind, in nanoseconds: how long it takes to arrive does not matter. At
// most one field is not 0; with none the clock is read.
type AdjustClockRequest struct {
	Step int64 `json:"step,omitempty"` // is added at once
	// Slew is added slowly, 500 µs a second, in place of what is left of an earlier
	// one.
	Slew int64 `json:"slew,omitempty"`
}

// AdjustClockReply is the answer to ADJUSTCLOCK.
type AdjustClockReply struct {
	Now int64 `json:"now"` // nanoseconds since 1970, after the step
}

// DropCachesRequest is the payload of DROPCACHES: the guest forgets the files that
// nobody uses, which the host keeps open for it.
type DropCachesRequest struct {
	// Pages are dropped first: files with some in memory are kept for them.
	Pages bool `json:"pages,omitempty"`
}

// OnlineRequest is the payload of ONLINECPUMEM: what was plugged since the guest has booted,
// all of which is in use when the command is answered. Without one the guest brings online what
// is there.
type OnlineRequest struct {
	CPUs      int `json:"cpus,omitempty"`
	MemoryMiB int `json:"memoryMiB,omitempty"`
}

// ReseedRequest is the payload of RESEED: the random numbers of a guest that goes on
// from where others do are its own from then on.
type ReseedRequest struct {
	// Entropy is from the host's own generator: 32 bytes at least, 512 at most, secret.
	Entropy []byte `json:"entropy"`
}

// RefreshVolumeRequest is the payload of REFRESHVOLUME: the host has changed a volume of
// [LiveVolumes]. For a volume that the guest has no copy of it is NotFound.
type RefreshVolumeRequest struct {
	Volume string `json:"volume"` // path below the share
	// Data is where the volume's link "..data" leads now. The guest may have an older link
	// in mind.
	Data string `json:"data"`
}
