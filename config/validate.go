package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Limits of values.
const (
	maxVCPUs     = 240     // of QEMU's q35 without an IOMMU
	minMemoryMiB = 128     // below, the guest image does not fit
	maxMemoryMiB = 1 << 22 // 4 TiB; more is a unit mixed up
	maxTimeout   = 30 * time.Minute
	minEndAfter  = 30 * time.Second // a beat and its limit
	// A socket's path has at most 107 bytes; the longest below the state
	// directory is a hash and a name of 42.
	maxStateDir = 64
	// Below it is a key of 32, and the directory of the VM that becomes a template.
	maxTemplateDir = 54
	maxSpare       = 16
	minSpareIdle   = time.Second
	maxSpareIdle   = 30 * 24 * time.Hour
	// The kernel cuts its command line off at 2048 bytes, of which the driver
	// needs less than half.
	maxKernelArgs = 1024
)

// problem is something wrong with one value.
type problem struct {
	key  string
	text string
}

func (p problem) Error() string { return p.key + ": " + p.text }

// Validate checks the values, and that the files that they name exist. The
// error names every problem and its key.
func (c Config) Validate() error {
	var errs []error
	for _, p := range c.problems() {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// problems returns all of them, in the order of the keys in the file.
func (c Config) problems() []problem {
	v := &validator{}
	v.absolute("state_dir", c.StateDir)
	v.atMost("state_dir", len(c.StateDir), maxStateDir)
	v.program("hypervisor.path", c.Hypervisor.Path, "install qemu-system-x86")
	v.oneOf("hypervisor.machine", c.Hypervisor.Machine, "q35", "microvm")
	v.oneOf("hypervisor.accelerator", c.Hypervisor.Accelerator, "auto", "kvm", "tcg")
	v.within("vm.vcpus", c.VM.VCPUs, 1, maxVCPUs)
	v.within("vm.memory_mib", c.VM.MemoryMiB, minMemoryMiB, maxMemoryMiB)
	v.within("vm.overhead_mib", c.VM.OverheadMiB, 0, maxMemoryMiB)
	v.within("vm.host_memory_mib", c.VM.HostMemoryMiB, 0, maxMemoryMiB)
	v.within("vm.max_vcpus", c.VM.MaxVCPUs, 0, maxVCPUs)
	v.within("vm.max_memory_mib", c.VM.MaxMemoryMiB, 0, maxMemoryMiB)
	v.file("guest.kernel", c.Guest.Kernel, "build it with `ccv2 image build`")
	v.file("guest.image", c.Guest.Image, "build it with `ccv2 image build`")
	v.oneOf("guest.dialect", c.Guest.Dialect, "auto", "ccv2", "hyperhq", "clear-c", "clear-go")
	v.kernelArgs("guest.kernel_args", c.Guest.KernelArgs)
	v.span("guest.boot_timeout", c.Guest.BootTimeout)
	v.span("guest.call_timeout", c.Guest.CallTimeout)
	v.oneOf("share.type", c.Share.Type, "virtiofs", "9p")
	if c.Share.Type == "virtiofs" {
		if c.Hypervisor.Machine == "microvm" {
			v.bad("share.type", "a microvm has no slot to plug virtiofs into; use \"9p\"")
		}
		v.program("share.virtiofsd", c.Share.VirtioFSD,
			"run make install, or install virtiofsd (Debian 12: qemu-system-common) and set the path, or set share.type = \"9p\"")
	}
	if c.Health.EndAfter != 0 {
		v.span("health.end_after", c.Health.EndAfter)
		if c.Health.EndAfter > 0 && time.Duration(c.Health.EndAfter) < minEndAfter {
			v.bad("health.end_after", "%s is less than %s: a sandbox is asked every 20s, and one late answer would end it; \"0s\" ends none",
				time.Duration(c.Health.EndAfter), minEndAfter)
		}
	}
	v.absolute("template.dir", c.Template.Dir)
	v.atMost("template.dir", len(c.Template.Dir), maxTemplateDir)
	v.within("template.max_mib", c.Template.MaxMiB, 1, maxMemoryMiB)
	v.within("template.spare", c.Template.Spare, 0, maxSpare)
	if idle := time.Duration(c.Template.SpareIdle); idle != 0 && (idle < minSpareIdle || idle > maxSpareIdle) {
		v.bad("template.spare_idle", "%s is not between %s and %s; \"0s\" ends none", idle, minSpareIdle, maxSpareIdle)
	}
	for _, name := range c.Annotations.Allow {
		if _, ok := annotationKey(name); !ok {
			v.bad("annotations.allow", "%q cannot be set by a container; %s", name, settableHelp())
		}
	}
	return v.found
}

func settableHelp() string {
	return "what can be set is " + AnnotationPrefix + strings.Join(settable, ", "+AnnotationPrefix)
}

// validator collects problems.
type validator struct{ found []problem }

func (v *validator) bad(key, format string, args ...any) {
	v.found = append(v.found, problem{key, fmt.Sprintf(format, args...)})
}

func (v *validator) oneOf(key, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		v.bad(key, "%q is not one of %s", got, strings.Join(allowed, ", "))
	}
}

func (v *validator) within(key string, got, least, most int) {
	if got < least || got > most {
		v.bad(key, "%d is not between %d and %d", got, least, most)
	}
}

func (v *validator) span(key string, got Duration) {
	if got <= 0 || time.Duration(got) > maxTimeout {
		v.bad(key, "%s is not between 0s and %s", time.Duration(got), maxTimeout)
	}
}

func (v *validator) absolute(key, path string) bool {
	if !filepath.IsAbs(path) {
		v.bad(key, "%q is not an absolute path", path)
		return false
	}
	return true
}

func (v *validator) atMost(key string, got, most int) {
	if got > most {
		v.bad(key, "is longer than %d bytes, which leaves no room for the names of sockets", most)
	}
}

func (v *validator) kernelArgs(key string, args []string) {
	joined := strings.Join(args, " ")
	if len(joined) > maxKernelArgs {
		v.bad(key, "is longer than %d bytes; the kernel would not read all of it", maxKernelArgs)
	}
	if strings.ContainsAny(joined, "\x00\n") {
		v.bad(key, "contains a control character")
	}
}

// file checks that a regular file is there, and says how to get it.
func (v *validator) file(key, path, fix string) os.FileInfo {
	if !v.absolute(key, path) {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		v.bad(key, "%s does not exist; %s", path, fix)
	case err != nil:
		v.bad(key, "%v", err)
	case !info.Mode().IsRegular():
		v.bad(key, "%s is not a file; %s", path, fix)
	default:
		return info
	}
	return nil
}

// program checks that a file can be executed.
func (v *validator) program(key, path, fix string) {
	if info := v.file(key, path, fix); info != nil && info.Mode()&0o111 == 0 {
		v.bad(key, "%s cannot be executed; %s", path, fix)
	}
}
