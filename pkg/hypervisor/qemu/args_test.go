package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenSpec is the middle of the road; the cases change it.
func goldenSpec() hypervisor.Spec {
	return hypervisor.Spec{
		ID: "pod-1", Binary: "/usr/bin/qemu-system-x86_64", Dir: "/run/ccv2/pod-1",
		Machine: hypervisor.MachineQ35, Accelerator: hypervisor.AccelKVM,
		Size:  hypervisor.Size{CPUs: 2, MemoryMiB: 512},
		Image: hypervisor.Image{Kernel: "/usr/share/ccv2/vmlinux", Initrd: "/usr/share/ccv2/initrd"},
		Ports: []string{"sh.hyper.channel.0", "sh.hyper.channel.1"},
	}
}

func TestCommandLine(t *testing.T) {
	host := hostFacts{tscKHz: 2500000}
	tests := []struct {
		name   string
		change func(*hypervisor.Spec)
		host   hostFacts
	}{
		{"q35-kvm", func(*hypervisor.Spec) {}, host},
		{"q35-tcg", func(s *hypervisor.Spec) { s.Accelerator = hypervisor.AccelTCG }, host},
		{"q35-shared", func(s *hypervisor.Spec) {
			s.SharedMemory = true
			s.KernelArgs = []string{"loglevel=7", "ccv2.debug"}
		}, host},
		{"q35-max", func(s *hypervisor.Spec) {
			s.Accelerator, s.SharedMemory, s.Max = hypervisor.AccelTCG, true, hypervisor.Size{CPUs: 8, MemoryMiB: 4096}
		}, host},
		{"q35-9p", func(s *hypervisor.Spec) {
			s.Shares9P = []hypervisor.Share9P{{Tag: "rootfs", Dir: "/run/a,b"}, {Tag: "logs", Dir: "/var/log/pods"}}
			s.Initrd, s.Ports = "", nil
		}, host},
		{"microvm", func(s *hypervisor.Spec) {
			s.Machine, s.Accelerator = hypervisor.MachineMicroVM, hypervisor.AccelTCG
		}, host},
		{"old-host", func(s *hypervisor.Spec) { s.Accelerator = hypervisor.AccelTCG }, hostFacts{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := goldenSpec()
			tt.change(&spec)
			got := byLines(commandLine(spec, tt.host))
			path := filepath.Join("testdata", tt.name+".args")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v; run go test -update", err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("command line (-want +got):\n%s", diff)
			}
		})
	}
}

// byLines puts every option with its value on a line.
func byLines(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		switch {
		case i == 0:
		case strings.HasPrefix(arg, "-"):
			b.WriteByte('\n')
		default:
			b.WriteByte(' ')
		}
		b.WriteString(arg)
	}
	return b.String() + "\n"
}
