package hyperstart

import "encoding/json"

// Payloads that all dialects share. The C agents refuse keys that they do not
// know, so a field that not every dialect has is omitted when empty.

// StartPodRequest is the payload of STARTPOD.
type StartPodRequest struct {
	// Hostname is mandatory: without one hyperhq's agent never answers.
	Hostname string `json:"hostname"`
	// ShareDir is the tag of the shared file system, not a directory.
	ShareDir   string      `json:"shareDir,omitempty"`
	DNS        []string    `json:"dns,omitempty"`
	Interfaces []Interface `json:"interfaces,omitempty"`
	Routes     []Route     `json:"routes,omitempty"`

	// ShareType is "virtiofs" or "9p"; ccv2 only.
	ShareType string `json:"shareType,omitempty"`
	// Clock is the host's time in nanoseconds since 1970; ccv2 only, 0 leaves
	// the guest's clock alone.
	Clock int64 `json:"clock,omitempty"`
	// Sysctls are set in the guest before any container; ccv2 only.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// ShmSize is the size in bytes of the tmpfs at [ShmMount]; ccv2 only, 0 for
	// none.
	ShmSize int64 `json:"shmSize,omitempty"`
}

// Process is the process object of NEWCONTAINER and EXECCMD.
type Process struct {
	ID               string   `json:"id,omitempty"`
	User             string   `json:"user,omitempty"`
	Group            string   `json:"group,omitempty"`
	AdditionalGroups []string `json:"additionalGroups,omitempty"`
	Terminal         bool     `json:"terminal"`
	// Stdio and Stderr are sequence numbers. The proxy fills them in; Stderr
	// is absent when Terminal is set.
	Stdio   uint64   `json:"stdio,omitempty"`
	Stderr  uint64   `json:"stderr,omitempty"`
	Args    []string `json:"args,omitempty"`
	Envs    []Env    `json:"envs,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	// Rows and Columns are the initial size of the terminal; clear-c and ccv2.
	Rows        uint16 `json:"rows,omitempty"`
	Columns     uint16 `json:"columns,omitempty"`
	*Privileges        // clear-go only, which has defaults
	// OCI is the process of the OCI runtime specification; ccv2 only. With
	// NEWCONTAINER the process is in the specification instead.
	OCI json.RawMessage `json:"oci,omitempty"`
	// Port, instead of OCI, makes the process a TCP connection to this port of the
	// guest's loopback; EXECCMD in ccv2 only.
	Port uint16 `json:"port,omitempty"`
}

// Privileges are what a process may do.
type Privileges struct {
	NoNewPrivileges bool          `json:"noNewPrivileges,omitempty"`
	Capabilities    *Capabilities `json:"capabilities,omitempty"`
}

// Capabilities are the five sets of a process, by names such as "CAP_KILL".
type Capabilities struct {
	Bounding    []string `json:"bounding"`
	Effective   []string `json:"effective"`
	Inheritable []string `json:"inheritable"`
	Permitted   []string `json:"permitted"`
	Ambient     []string `json:"ambient"`
}

// Env is one environment variable.
type Env struct {
	Env   string `json:"env"`
	Value string `json:"value"`
}

// NewContainerRequest is the payload of NEWCONTAINER.
//
// In the ccv2 dialect the command creates the container and STARTCONTAINER
// starts it. Spec is then a whole OCI runtime specification whose paths are
// guest paths; Image, RootFS and FSMap are not used.
type NewContainerRequest struct {
	ID      string   `json:"id"`
	RootFS  string   `json:"rootfs,omitempty"`
	Image   string   `json:"image,omitempty"`
	FSType  string   `json:"fstype,omitempty"`
	Process *Process `json:"process"`
	FSMap   []FSMap  `json:"fsmap,omitempty"`

	// Spec is the OCI runtime specification; ccv2 only.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Disks are the block devices of Spec that were plugged for it; ccv2 only.
	Disks []Disk `json:"disks,omitempty"`
	// Memory is the volumes of [MemoryMount] that Spec has; ccv2 only.
	Memory []MemoryVolume `json:"memory,omitempty"`
}

// Disk is a block device of the host that the guest has as well: where a
// specification has the host's number, its own is meant.
type Disk struct {
	Major  int64  `json:"major"` // of the host
	Minor  int64  `json:"minor"`
	Serial string `json:"serial"` // of the guest's disk
}

// FSMap binds a file or directory of the share into the container.
type FSMap struct {
	Source   string `json:"source"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly"`
	// DockerVolume is mandatory for the C agents.
	DockerVolume bool `json:"dockerVolume"`
}

// ExecCmdRequest is the payload of EXECCMD.
type ExecCmdRequest struct {
	Container string   `json:"container"`
	Process   *Process `json:"process"`
}

// ContainerRef names a container: REMOVECONTAINER and the ccv2 commands.
type ContainerRef struct {
	Container string `json:"container"`
}

// KillContainerRequest is the payload of KILLCONTAINER.
type KillContainerRequest struct {
	Container string `json:"container"`
	Signal    int    `json:"signal"`
	// AllProcesses reaches every process of the container; clear-go and ccv2.
	AllProcesses bool `json:"allProcesses"`
}

// SignalProcessRequest is the payload of SIGNALPROCESS.
type SignalProcessRequest struct {
	Container string `json:"container"`
	Process   string `json:"process"`
	Signal    int    `json:"signal"`
}

// WinSizeBySeq is the payload of WINSIZE where the process is named by its
// stdio sequence number.
type WinSizeBySeq struct {
	Seq    uint64 `json:"seq"`
	Row    uint16 `json:"row"`
	Column uint16 `json:"column"`
}

// WinSizeByName is the payload of WINSIZE in hyperhq's dialect.
type WinSizeByName struct {
	Container string `json:"container"`
	Process   string `json:"process"`
	Row       uint16 `json:"row"`
	Column    uint16 `json:"column"`
}

// AsyncEvent is the payload of hyperhq's PROCESSASYNCEVENT.
type AsyncEvent struct {
	Container string `json:"container"`
	Process   string `json:"process"`
	Event     string `json:"event"`
	Status    int    `json:"status"`
}
