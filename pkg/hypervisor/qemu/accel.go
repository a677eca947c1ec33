package qemu

import (
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Host says where to look for the means of acceleration. [LocalHost] is this
// machine.
type Host struct {
	KVM     string // the device, e.g. "/dev/kvm"
	CPUInfo string // e.g. "/proc/cpuinfo"
}

// LocalHost returns the usual paths.
func LocalHost() Host { return Host{KVM: "/dev/kvm", CPUInfo: "/proc/cpuinfo"} }

// Resolve turns want into an accelerator that can be used, and says why it is
// not KVM (the reason is "" when it is, or when TCG was asked for).
//
// AccelAuto takes KVM when its device opens and the CPU has vmx or svm. A
// device without these exists, where a hypervisor offers nesting by
// paravirtualisation: a VM starts on it, and a stock kernel hangs at boot.
// AccelKVM trusts the operator about the CPU, and is an error of class
// errdefs.ErrUnavailable when the device does not open.
func Resolve(want hypervisor.Accelerator, host Host) (got hypervisor.Accelerator, reason string, err error) {
	switch want {
	case hypervisor.AccelTCG:
		return hypervisor.AccelTCG, "", nil
	case hypervisor.AccelKVM:
		if err := openKVM(host.KVM); err != nil {
			return "", "", fmt.Errorf("use kvm: %w: %w; load the kvm module or set [hypervisor] accelerator = \"auto\"",
				err, errdefs.ErrUnavailable)
		}
		return hypervisor.AccelKVM, "", nil
	case hypervisor.AccelAuto:
		if err := openKVM(host.KVM); err != nil {
			return hypervisor.AccelTCG, err.Error(), nil //nolint:nilerr // the reason for TCG, not a failure
		}
		flags := cpuFlags(host.CPUInfo)
		if !slices.Contains(flags, "vmx") && !slices.Contains(flags, "svm") {
			return hypervisor.AccelTCG, host.KVM + " opens, but the CPU has neither vmx nor svm", nil
		}
		return hypervisor.AccelKVM, "", nil
	default:
		return "", "", fmt.Errorf("accelerator %q: want auto, kvm or tcg: %w", want, errdefs.ErrInvalidArgument)
	}
}

func openKVM(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
