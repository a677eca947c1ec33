package vmconfig_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
)

func TestOf(t *testing.T) {
	c := config.Defaults()
	c.Guest.KernelArgs = make([]string, 1, 2) // room that must not be written to
	c.Guest.KernelArgs[0] = "a"
	c.Guest.Console = true
	c.Guest.Dialect = "hyperhq"
	c.Share.Type = "9p"
	got, err := vmconfig.Of(c, hypervisor.AccelTCG)
	if err != nil {
		t.Fatal(err)
	}
	want := podvm.Config{
		Spec: hypervisor.Spec{
			Binary: c.Hypervisor.Path, Machine: hypervisor.MachineQ35, Accelerator: hypervisor.AccelTCG,
			Size: hypervisor.Size{CPUs: 1, MemoryMiB: 512}, Image: hypervisor.Image{
				Kernel: c.Guest.Kernel, Initrd: c.Guest.Image,
				KernelArgs: []string{"a", "loglevel=7"},
			},
		},
		ShareType: "9p", VirtioFSD: c.Share.VirtioFSD, HostMemoryMiB: 512, Dialect: hyperstart.DialectHyperhq,
		BootTimeout: time.Minute, CallTimeout: time.Minute, ProxySocket: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.Guest.KernelArgs = c.Guest.KernelArgs[:2]; c.Guest.KernelArgs[1] != "" {
		t.Error("the configuration's own arguments were changed")
	}
}

func TestAcceleratedDeadlines(t *testing.T) {
	got, err := vmconfig.Of(config.Defaults(), hypervisor.AccelKVM)
	if err != nil {
		t.Fatal(err)
	}
	if got.BootTimeout != 10*time.Second || !got.VhostNet || !got.Spec.SharedMemory || got.Dialect != hyperstart.DialectUnknown {
		t.Errorf("got %+v", got)
	}
}

func TestBadDialect(t *testing.T) {
	c := config.Defaults()
	c.Guest.Dialect = "klingon"
	if _, err := vmconfig.Of(c, hypervisor.AccelKVM); err == nil {
		t.Error("no error")
	}
}
