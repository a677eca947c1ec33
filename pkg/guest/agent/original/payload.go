package original

import (
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// NewContainer is the payload of NEWCONTAINER: of this dialect when it has a specification,
// else of an original one.
type NewContainer struct {
	hyperstart.NewContainerRequest

	Process     *Process           `json:"process"` // in place of the embedded one
	ReadOnly    bool               `json:"readOnly,omitempty"`
	Sysctl      map[string]string  `json:"sysctl,omitempty"`
	Constraints Constraints        `json:"constraints"`
	Addr        string             `json:"addr,omitempty"`
	SCSIAddr    string             `json:"scsiAddr,omitempty"`
	Volumes     []any              `json:"volumes,omitempty"`
	Ports       []any              `json:"ports,omitempty"`
	Initialize  bool               `json:"initialize,omitempty"` // layers of an image; there is nothing to be done
	Mounts      SystemMounts       `json:"systemMountsInfo"`
	Binds       []AbsolutePathBind `json:"fsmap,omitempty"` // in place of the embedded one
}

// AbsolutePathBind is an entry of fsmap with the key that only the Go agent knows.
type AbsolutePathBind struct {
	hyperstart.FSMap

	AbsolutePath bool   `json:"absolutePath,omitempty"` // the source is the guest's, not below the share
	SCSIAddr     string `json:"scsiAddr,omitempty"`
}

// Constraints are the limits of a container.
type Constraints struct {
	CPUQuota  int64
	CPUPeriod uint64
	CPUShares uint64
}

// SystemMounts are about the file systems that every container has.
type SystemMounts struct {
	BindMountDev bool `json:"bindMountDev,omitempty"` // the guest's /dev, for devices that are plugged
	DevShmSize   int  `json:"devShmSize,omitempty"`   // bytes
}

// Process is the process object with the keys that the Go agent knows.
type Process struct {
	hyperstart.Process

	NoNewPrivileges bool         `json:"noNewPrivileges,omitempty"`
	Capabilities    Capabilities `json:"capabilities"`
	Rlimits         []Rlimit     `json:"rlimits,omitempty"`
}

// Capabilities have names such as "CAP_KILL". Without a bounding set a process has the
// default ones.
type Capabilities struct {
	Bounding, Effective, Inheritable, Permitted, Ambient []string
}

// Rlimit is a limit of a process.
type Rlimit struct {
	Type       string
	Hard, Soft uint64
}

// ExecCmd is the payload of EXECCMD.
type ExecCmd struct {
	Container string   `json:"container"`
	Process   *Process `json:"process"`
}

// Base is the part of a process that all dialects have, nil without a process.
func (p *Process) Base() *hyperstart.Process {
	if p == nil {
		return nil
	}
	return &p.Process
}

// refuse names what a container asks for and cannot have.
func (r *NewContainer) refuse() error {
	for _, lack := range []struct {
		what  string
		asked bool
	}{
		{"a root file system on a block device (fstype, addr)", r.FSType != "" || r.Addr != "" || r.SCSIAddr != ""},
		{"volumes", len(r.Volumes) > 0},
		{"ports", len(r.Ports) > 0},
		{"the guest's /dev (bindMountDev)", r.Mounts.BindMountDev},
	} {
		if lack.asked {
			return fmt.Errorf("%s cannot be had from this guest", lack.what)
		}
	}
	for _, b := range r.Binds {
		if b.SCSIAddr != "" {
			return fmt.Errorf("the disk %s on %s cannot be had from this guest", b.SCSIAddr, b.Path)
		}
	}
	return nil
}

// StartPod is the payload of STARTPOD with the keys of the C agents.
type StartPod struct {
	hyperstart.StartPodRequest

	Containers    []any    `json:"containers,omitempty"`
	DNSSearch     []string `json:"dnsSearch,omitempty"`
	DNSOptions    []string `json:"dnsOptions,omitempty"`
	PortWhiteList any      `json:"portmappingWhiteLists,omitempty"`
	IptableRules  string   `json:"iptableRules,omitempty"`
}

// Refuse names what a pod asks for and cannot have.
func (r *StartPod) Refuse() error {
	for _, lack := range []struct {
		what  string
		asked bool
	}{
		{"containers of STARTPOD, instead of NEWCONTAINER,", len(r.Containers) > 0},
		{"dnsSearch and dnsOptions", len(r.DNSSearch)+len(r.DNSOptions) > 0},
		{"portmappingWhiteLists and iptableRules", r.PortWhiteList != nil || r.IptableRules != ""},
	} {
		if lack.asked {
			return hyperstart.Errorf(hyperstart.ClassNotImplemented, "start pod: %s cannot be had from this guest", lack.what)
		}
	}
	return nil
}
