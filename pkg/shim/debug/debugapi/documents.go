package debugapi

import (
	"encoding/json"
	"time"
)

// Socket is the name of the service's socket in the directory of a sandbox.
const Socket = "debug.sock"

// Info is what Info answers.
type Info struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	State     string `json:"state"`
	Paused    bool   `json:"paused,omitempty"`
	// Lost is why the VM has ended; "" as long as it has not.
	Lost string `json:"lost,omitempty"`
	// Unhealthy is which part does not answer, and why; "" when all do.
	Unhealthy  string          `json:"unhealthy,omitempty"`
	Shim       Shim            `json:"shim"`
	VM         *VM             `json:"vm,omitempty"` // nil before there is one
	Guest      *Guest          `json:"guest,omitempty"`
	Phases     []Phase         `json:"phases,omitempty"`
	Containers []Container     `json:"containers"`
	Config     json.RawMessage `json:"config,omitempty"` // in force, as the shim has it
	// Errors are what could not be found out, by what was asked.
	Errors map[string]string `json:"errors,omitempty"`
}

// Shim is the process that answers.
type Shim struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Goroutines int    `json:"goroutines"`
}

// VM is the virtual machine.
type VM struct {
	PID     int      `json:"pid"`
	Source  string   `json:"source,omitempty"` // "boot", "template" or "spare"; "" before the boot has succeeded
	Version string   `json:"version,omitempty"`
	Status  string   `json:"status,omitempty"` // as the VMM calls it; "" when it was not asked
	Devices []string `json:"devices,omitempty"`
	Disks   []Disk   `json:"disks,omitempty"` // when the VMM was asked
	// Attached are the disks that an operator has attached.
	Attached []Attached `json:"attached,omitempty"`
}

// Attached is a disk that an operator has attached.
type Attached struct {
	ID       string `json:"id"`   // its serial in the guest
	Path     string `json:"path"` // on the host
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Disk is what the guest has done with a disk.
type Disk struct {
	ID               string `json:"id"`
	ReadBytes        uint64 `json:"read_bytes"`
	Reads            uint64 `json:"reads"`
	ReadNanoseconds  int64  `json:"read_nanoseconds"`
	WrittenBytes     uint64 `json:"written_bytes"`
	Writes           uint64 `json:"writes"`
	WriteNanoseconds int64  `json:"write_nanoseconds"`
	Flushes          uint64 `json:"flushes"`
	Failed           uint64 `json:"failed"`
}

// Guest is what runs in it.
type Guest struct {
	Dialect      string `json:"dialect"`
	Kernel       string `json:"kernel,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`
	AgentRSS     uint64 `json:"agent_rss,omitempty"`     // bytes
	MemTotal     uint64 `json:"mem_total,omitempty"`     // bytes
	MemAvailable uint64 `json:"mem_available,omitempty"` // bytes
	BootMillis   int64  `json:"boot_millis,omitempty"`   // the guest's uptime when its agent was ready
}

// Phase is one step of the start.
type Phase struct {
	Name  string    `json:"name"`
	Begin time.Time `json:"begin"`
	// Nanoseconds is how long it took, or has taken so far.
	Nanoseconds int64  `json:"nanoseconds"`
	Running     bool   `json:"running,omitempty"`
	Error       string `json:"error,omitempty"`
}

// Container is a container of the sandbox.
type Container struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"` // what its pod calls it
	State  string `json:"state"`
	PID    int    `json:"pid,omitempty"` // on the host
	Bundle string `json:"bundle"`
	Exit   *Exit  `json:"exit,omitempty"`
	// Execs are its other processes that were started through containerd.
	Execs []Process `json:"execs,omitempty"`
}

// Process is an exec process.
type Process struct {
	ID    string `json:"id"`
	State string `json:"state"`
	PID   int    `json:"pid,omitempty"`
	Exit  *Exit  `json:"exit,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Status uint32    `json:"status"`
	At     time.Time `json:"at"`
}
