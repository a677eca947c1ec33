package config

import (
	_ "embed"
	"fmt"
	"time"
)

// DefaultPath is the configuration file; files in DefaultPath+".d" whose names
// end in .toml are read after it, in the order of their names. Both may be missing.
const DefaultPath = "/etc/ccv2/config.toml"

// EnvPath names another file in the environment of the shim, which is that of
// containerd.
const EnvPath = "CCV2_CONFIG"

// Default is the commented file that is installed. It says what [Defaults] says.
//
//go:embed config.toml
var Default []byte

// Config is the whole configuration. Use [Defaults] or [Load] to get one.
type Config struct {
	StateDir    string      `toml:"state_dir"`
	Hypervisor  Hypervisor  `toml:"hypervisor"`
	VM          VM          `toml:"vm"`
	Guest       Guest       `toml:"guest"`
	Share       Share       `toml:"share"`
	Template    Template    `toml:"template"`
	Proxy       Proxy       `toml:"proxy"`
	Health      Health      `toml:"health"`
	Annotations Annotations `toml:"annotations"`
}

// Hypervisor says which VMM runs, and how.
type Hypervisor struct {
	Path        string `toml:"path"`
	Machine     string `toml:"machine"`     // q35 or microvm
	Accelerator string `toml:"accelerator"` // auto, kvm or tcg
}

// VM is the size of the machine.
type VM struct {
	VCPUs     int `toml:"vcpus"`
	MemoryMiB int `toml:"memory_mib"`
	// MaxVCPUs and MaxMemoryMiB bound what a pod's limits make of the VM; 0 is
	// what the host has.
	MaxVCPUs     int `toml:"max_vcpus"`
	MaxMemoryMiB int `toml:"max_memory_mib"`
	// OverheadMiB is added to a pod's memory limit for the guest's kernel and agent.
	OverheadMiB int `toml:"overhead_mib"`
	// HostMemoryMiB is what QEMU, virtiofsd and the shim may take beside the VM's
	// memory where no pod's cgroup bounds them; 0 is no limit.
	HostMemoryMiB int `toml:"host_memory_mib"`
	// VhostNet has the host's kernel carry the frames of a pod's network.
	VhostNet bool `toml:"vhost_net"`
}

// Guest is what runs in the machine.
type Guest struct {
	Kernel      string   `toml:"kernel"`
	Image       string   `toml:"image"`
	Dialect     string   `toml:"dialect"` // auto, ccv2, hyperhq, clear-c or clear-go
	KernelArgs  []string `toml:"kernel_args"`
	BootTimeout Duration `toml:"boot_timeout"`
	CallTimeout Duration `toml:"call_timeout"`
	// Console keeps the guest's messages coming, for debugging.
	Console bool `toml:"console"`
	// ConsoleInput has an operator type on the console, where a shell answers that is in the image.
	ConsoleInput bool `toml:"console_input"`
}

// Share is how files of the host reach the guest.
type Share struct {
	Type      string `toml:"type"` // virtiofs or 9p
	VirtioFSD string `toml:"virtiofsd"`
}

// Template says whether VMs go on from where one has booted before.
type Template struct {
	Enabled bool `toml:"enabled"`
	// Background has a shim that finds no template start a process that makes one.
	Background bool   `toml:"background"`
	Dir        string `toml:"dir"`
	MaxMiB     int    `toml:"max_mib"` // of all templates
	// Spare is how many VMs are kept ready, paused, for the pods to come.
	Spare int `toml:"spare"`
	// SpareIdle is how long one of them waits for a pod before it ends; 0 is for ever.
	SpareIdle Duration `toml:"spare_idle"`
}

// Proxy is the sandbox's own socket for proxy frames.
type Proxy struct {
	Socket bool `toml:"socket"`
}

// Health says what becomes of a sandbox that does not answer.
type Health struct {
	// EndAfter is how long it may be so before its VM is ended; 0 is for ever.
	EndAfter Duration `toml:"end_after"`
}

// Annotations says which keys a container may set for itself.
type Annotations struct {
	Allow []string `toml:"allow"`
}

// Duration is a time span in Go's notation, such as "30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time span such as \"30s\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Defaults returns the compiled defaults.
func Defaults() Config {
	return Config{
		StateDir: "/run/ccv2",
		Hypervisor: Hypervisor{
			Path:        "/usr/bin/qemu-system-x86_64",
			Machine:     "q35",
			Accelerator: "auto",
		},
		VM: VM{VCPUs: 1, MemoryMiB: 512, OverheadMiB: 96, HostMemoryMiB: 512, VhostNet: true},
		Guest: Guest{
			Kernel:      "/usr/share/ccv2/vmlinux",
			Image:       "/usr/share/ccv2/initrd.img",
			Dialect:     "auto",
			KernelArgs:  []string{},
			BootTimeout: Duration(10 * time.Second),
			CallTimeout: Duration(10 * time.Second),
		},
		Share:       Share{Type: "virtiofs", VirtioFSD: "/usr/lib/qemu/virtiofsd"},
		Template:    Template{Enabled: true, Background: true, Dir: "/var/lib/ccv2/templates", MaxMiB: 1024, SpareIdle: Duration(30 * time.Minute)},
		Proxy:       Proxy{Socket: true},
		Annotations: Annotations{Allow: []string{}},
	}
}
