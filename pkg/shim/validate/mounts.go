package validate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// invalidMounts are those that runc refuses, as programs trust in what is there.
var invalidMounts = []rule{
	{"mounts.destination", func(s *specs.Spec) string {
		for _, m := range s.Mounts {
			place := placeOf(m)
			switch {
			case place == "/proc" && !isProc(m):
				return fmt.Sprintf("%q is for the file system of processes", m.Destination)
			case strings.HasPrefix(place, "/proc/") && !slices.Contains(procFiles, place):
				return fmt.Sprintf("%q is inside /proc", m.Destination)
			}
		}
		return ""
	}, "only a proc file system can be mounted at /proc, and below it over single files that describe the machine (/proc/cpuinfo, /proc/meminfo …)"},
	{"mounts.source", func(s *specs.Spec) string {
		if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return bundle.IsBind(m) && placeOf(m) == "/dev" }) {
			return "" // runc leaves such a /dev alone
		}
		for _, m := range s.Mounts {
			if bundle.IsBind(m) && placeOf(m) == os.DevNull && !isNull(m.Source) {
				return fmt.Sprintf("%q at %s", m.Source, m.Destination)
			}
		}
		return ""
	}, "it is not the device that a container's /dev/null has to be"},
}

// procFiles are what runc lets be mounted over: lxcfs has them.
var procFiles = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// placeOf is where a mount is in the container, but for symlinks of its image.
func placeOf(m specs.Mount) string { return filepath.Join("/", m.Destination) }

// isProc reports whether a mount is a proc file system, a new one or that of the kernel.
func isProc(m specs.Mount) bool {
	if !bundle.IsBind(m) {
		return m.Type == "proc"
	}
	kernel, ok := bundle.KernelOf(m)
	return ok && strings.HasPrefix(kernel.Path+"/", "/proc/")
}

// isNull reports whether a file is the null device. What cannot be looked at is left to who
// needs it.
func isNull(path string) bool {
	const major, minor = 1, 3
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || !filepath.IsAbs(path) {
		return true
	}
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(major, minor)
}
