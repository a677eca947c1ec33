package qemu

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Driver makes QEMU machines. Its zero value can be used.
type Driver struct{}

var _ hypervisor.Driver = (*Driver)(nil)

// New returns a driver.
func New() *Driver { return new(Driver) }

// Start implements [hypervisor.Driver]. A spec that cannot work is
// errdefs.ErrInvalidArgument with every problem named, a missing file
// errdefs.ErrNotFound; a QEMU that ends before its guest runs is
// errdefs.ErrUnavailable with what it wrote.
func (*Driver) Start(ctx context.Context, spec hypervisor.Spec) (hypervisor.VM, error) {
	if err := validate(spec); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	var host hostFacts
	if spec.Accelerator == hypervisor.AccelTCG {
		host.tscKHz = tscKHz(cpuFlags("/proc/cpuinfo"))
	}
	m, err := start(ctx, spec, commandLine(spec, host))
	if err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	return m, nil
}

// Limits of a spec.
const (
	minMemoryMiB = 64
	maxSlots     = 31 // of a PCI bus; 0 is never used
	maxDir       = 95 // sun_path has 107 bytes without its terminator; see portSocket
	maxPorts     = 30 // a virtio-serial device has 31, the first of them a console
	maxTag       = 31 // of 9p; longer ones are cut by QEMU
)

// name is what may stand in an option of QEMU without any meaning to it.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// validate names every problem of spec.
func validate(spec hypervisor.Spec) error {
	var problems []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	check(name.MatchString(spec.ID), "id %q: want letters, digits, '.', '_' and '-'", spec.ID)
	check(slices.Contains([]hypervisor.Machine{hypervisor.MachineQ35, hypervisor.MachineMicroVM}, spec.Machine),
		"machine %q: want q35 or microvm", spec.Machine)
	check(slices.Contains([]hypervisor.Accelerator{hypervisor.AccelKVM, hypervisor.AccelTCG}, spec.Accelerator),
		"accelerator %q: want kvm or tcg (auto is resolved by the caller)", spec.Accelerator)
	check(spec.CPUs >= 1, "cpus %d: want at least 1", spec.CPUs)
	check(spec.MemoryMiB >= minMemoryMiB, "memory %d MiB: want at least %d", spec.MemoryMiB, minMemoryMiB)
	check(filepath.IsAbs(spec.Dir) && len(spec.Dir) <= maxDir, "directory %q has %d bytes: want an absolute path of at most %d", spec.Dir, len(spec.Dir), maxDir)
	check(len(spec.Ports) <= maxPorts, "%d ports: want at most %d", len(spec.Ports), maxPorts)
	for i, port := range spec.Ports {
		check(name.MatchString(port), "port name %q: want letters, digits, '.', '_' and '-'", port)
		check(!slices.Contains(spec.Ports[:i], port), "two ports are called %s", port)
	}
	for _, s := range spec.Shares9P {
		check(name.MatchString(s.Tag) && len(s.Tag) <= maxTag, "9p tag %q: want a name of at most %d bytes", s.Tag, maxTag)
		check(filepath.IsAbs(s.Dir), "9p share %s: directory %q: want an absolute path", s.Tag, s.Dir)
	}
	if snap := spec.Snapshot; snap != nil {
		check(spec.SharedMemory && snap.Memory != nil, "a snapshot without a file that is the shared memory")
		check(snap.Devices == nil || len(snap.Devices) > 0, "a snapshot with devices of no bytes") // QEMU would wait for more
	}
	for _, arg := range spec.KernelArgs {
		check(!strings.ContainsAny(arg, "\x00\n"), "kernel argument %q: contains a control character", arg)
	}
	if len(problems) > 0 {
		return fmt.Errorf("bad spec: %s: %w", strings.Join(problems, "; "), errdefs.ErrInvalidArgument)
	}
	return errors.Join(checkBinary(spec.Binary), checkKernel(spec.Kernel), checkInitrd(spec.Initrd))
}

func checkBinary(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w; install qemu-system-x86 or set [hypervisor] path", path, errdefs.ErrNotFound)
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not an executable file: %w; set [hypervisor] path", path, errdefs.ErrInvalidArgument)
	}
	return nil
}

func checkInitrd(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return notFound("guest image", path, err)
	}
	return nil
}

// checkKernel looks for the marks of something that QEMU can boot. What it
// refuses would otherwise run as garbage until the boot times out.
func checkKernel(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return notFound("kernel", path, err)
	}
	defer f.Close()
	// The boot protocol's header, at a fixed place in every bzImage.
	header := make([]byte, 0x206)
	if _, err := io.ReadFull(f, header); err == nil && string(header[0x202:]) == "HdrS" {
		return nil
	}
	if hasPVHNote(f) {
		return nil
	}
	return fmt.Errorf("kernel %s: neither a bzImage nor an ELF with a PVH note: %w; set [guest] kernel", path, errdefs.ErrInvalidArgument)
}

// hasPVHNote reports whether r is an ELF that says where a hypervisor enters it.
func hasPVHNote(r io.ReaderAt) bool {
	f, err := elf.NewFile(r)
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		const limit = 64 << 10 // notes of a kernel are a few 100 bytes
		if p.Type != elf.PT_NOTE || p.Filesz > limit {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			continue
		}
		// Type XEN_ELFNOTE_PHYS32_ENTRY, little-endian, then the owner's name.
		if strings.Contains(string(notes), "\x12\x00\x00\x00Xen\x00") {
			return true
		}
	}
	return false
}

func notFound(what, path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s %s: %w; build it with ccv2 image build or set [guest]", what, path, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w", what, path, err)
}
