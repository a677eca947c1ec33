package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) != "" {
		os.Exit(parentMain())
	}
	goleak.VerifyTestMain(m)
}

func makeFIFO(path string) error { return unix.Mkfifo(path, 0o600) }

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	path := func(name, content string) string {
		p := filepath.Join(dir, name)
		write(t, p, content)
		return p
	}
	kvm := path("kvm", "")
	intel := path("intel", "processor\t: 0\nflags\t\t: fpu vmx sse\n")
	amd := path("amd", "flags : svm\n")
	plain := path("plain", "flags\t: fpu vmx2 sse\n")
	tests := []struct {
		name   string
		want   hypervisor.Accelerator
		host   Host
		got    hypervisor.Accelerator
		reason string
		class  error
	}{
		{"tcg asked", hypervisor.AccelTCG, Host{kvm, intel}, hypervisor.AccelTCG, "", nil},
		{"kvm asked", hypervisor.AccelKVM, Host{kvm, plain}, hypervisor.AccelKVM, "", nil},
		{"kvm asked, absent", hypervisor.AccelKVM, Host{"/no/kvm", intel}, "", "", errdefs.ErrUnavailable},
		{"auto, intel", hypervisor.AccelAuto, Host{kvm, intel}, hypervisor.AccelKVM, "", nil},
		{"auto, amd", hypervisor.AccelAuto, Host{kvm, amd}, hypervisor.AccelKVM, "", nil},
		{"auto, no flag", hypervisor.AccelAuto, Host{kvm, plain}, hypervisor.AccelTCG, "neither vmx nor svm", nil},
		{"auto, no cpuinfo", hypervisor.AccelAuto, Host{kvm, "/no/cpuinfo"}, hypervisor.AccelTCG, "neither vmx nor svm", nil},
		{"auto, no device", hypervisor.AccelAuto, Host{"/no/kvm", intel}, hypervisor.AccelTCG, "/no/kvm", nil},
		{"unknown", "hvf", Host{kvm, intel}, "", "", errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, reason, err := Resolve(tt.want, tt.host)
			if got != tt.got || !errors.Is(err, tt.class) {
				t.Errorf("%q, %v; want %q, class %v", got, err, tt.got, tt.class)
			}
			if (tt.reason == "") != (reason == "") || !strings.Contains(reason, tt.reason) {
				t.Errorf("reason %q, want one with %q", reason, tt.reason)
			}
		})
	}
}

func TestTSC(t *testing.T) {
	if got := tscKHz([]string{"constant_tsc"}); got != 0 {
		t.Errorf("a counter that stops has %d kHz", got)
	}
	flags := cpuFlags("/proc/cpuinfo")
	if !slices.Contains(flags, "constant_tsc") || !slices.Contains(flags, "nonstop_tsc") {
		t.Skip("the CPU's counter is not constant")
	}
	a, b := tscKHz(flags), tscKHz(flags)
	if a < 100_000 || a > 10_000_000 {
		t.Errorf("%d kHz", a)
	}
	if diff := max(a, b) - min(a, b); diff > a/500 {
		t.Errorf("measured %d and %d kHz", a, b)
	}
}

func TestParseProbe(t *testing.T) {
	got, err := parseProbe(
		"QEMU emulator version 8.2.1 (v8.2.1)\nCopyright\n",
		"Supported machines are:\nmicrovm              microvm (i386)\nq35                  Standard PC (Q35) (alias of pc-q35-8.2)\n",
		"Controller/Bridge/Hub devices:\nname \"vhost-user-fs-pci\", bus PCI\nname \"virtio-9p-pci\", bus PCI, alias \"virtio-9p\"\n",
		"-S              freeze CPU at startup\n-sandbox on[,obsolete=allow|deny]\n",
	)
	if err != nil {
		t.Fatal(err)
	}
	want := hypervisor.Capabilities{Version: "8.2.1", Machines: []string{"microvm", "q35"}, Seccomp: true, VirtioFS: true, Virtio9P: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	got, err = parseProbe("QEMU emulator version 8.2.1", "", "name \"vhost-user-fs-device\"", "")
	if err != nil || got.Seccomp || got.VirtioFS || got.Virtio9P {
		t.Errorf("bare QEMU: %+v, %v", got, err)
	}
	if _, err := parseProbe("GNU bash, version 5\n", "", "", ""); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("not a QEMU: %v", err)
	}
}

func TestProbe(t *testing.T) {
	if _, err := os.Stat(qemuBinary); err != nil {
		t.Skip(err)
	}
	caps, err := New().Probe(t.Context(), qemuBinary)
	if err != nil {
		t.Fatal(err)
	}
	if caps.Version == "" || !slices.Contains(caps.Machines, "q35") || !caps.VirtioFS {
		t.Errorf("%+v", caps)
	}
	if _, err := New().Probe(t.Context(), "/no/qemu"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing binary: %v", err)
	}
	if _, err := New().Probe(t.Context(), fakeBinary(t, "echo bad >&2; exit 1")); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("failing binary: %v", err)
	}
}
