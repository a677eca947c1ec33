package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Fingerprint has a line for each fact that the saved state of a VM depends on. What is
// saved of one VM can be restored in another whose fingerprint is equal. Files are known
// by their inode and times: who changes one changes its ctime.
func (*Driver) Fingerprint(spec hypervisor.Spec) (string, error) {
	if err := validate(spec); err != nil {
		return "", fmt.Errorf("fingerprint of a vm: %w", err)
	}
	spec.ID, spec.Dir, spec.NetNS, spec.Snapshot, spec.Parked = "vm", "/", nil, nil, false
	// The frequency of the time stamp counter is measured anew each time. That of the
	// saved VM is the same processor's.
	lines := commandLine(spec, hostFacts{})
	for _, path := range append([]string{spec.Binary, spec.Kernel, spec.Initrd}, bundled(spec.Binary)...) {
		if path == "" {
			continue
		}
		id, err := fileIdentity(path)
		if err != nil {
			return "", fmt.Errorf("fingerprint of a vm: %w", err)
		}
		lines = append(lines, id)
	}
	lines = append(lines, processor("/proc/cpuinfo")...)
	if spec.Accelerator == hypervisor.AccelKVM {
		var uts unix.Utsname
		if err := unix.Uname(&uts); err != nil {
			return "", fmt.Errorf("fingerprint of a vm: %w", err)
		}
		lines = append(lines, "host kernel "+unix.ByteSliceToString(uts.Release[:])+" "+unix.ByteSliceToString(uts.Version[:]))
		lines = append(lines, parameters("/sys/module")...)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// bundled are the program and the directory of libraries that a binary stands for which is a
// link to a bundle's ccv2-exec: that itself does not change with them.
func bundled(binary string) (paths []string) {
	file, err := filepath.EvalSymlinks(binary)
	if err != nil || filepath.Base(file) == filepath.Base(binary) {
		return nil
	}
	root := filepath.Dir(filepath.Dir(file))
	for _, path := range []string{filepath.Join(root, "libexec", filepath.Base(binary)), filepath.Join(root, "lib")} {
		if _, err := os.Stat(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func fileIdentity(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%s: device %d inode %d size %d mtime %d ctime %d",
		path, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()), nil
}

// parameters are those of KVM, with which the processor of its guests is another one (nested).
func parameters(modules string) (lines []string) {
	paths, _ := filepath.Glob(filepath.Join(modules, "kvm*", "parameters", "*")) // the pattern is good
	for _, path := range paths {
		if value, err := os.ReadFile(path); err == nil { // some can only be written
			lines = append(lines, path+": "+strings.TrimSpace(string(value)))
		}
	}
	return lines
}

// processor is what /proc/cpuinfo says of the first processor and does not change.
func processor(cpuinfo string) []string {
	data, err := os.ReadFile(cpuinfo)
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(data), "\n\n")
	var lines []string
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		if slices.Contains([]string{"vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"}, strings.TrimSpace(key)) {
			lines = append(lines, strings.TrimSpace(key)+":"+strings.TrimSpace(value))
		}
	}
	return lines
}
