//go:build e2e

package harness

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Names of the runtimes that tests use.
const (
	Runtime  = "io.containerd.cc.v2"
	Runc     = "io.containerd.runc.v2" // to compare with
	ShimName = "containerd-shim-ccv2"
	RuncShim = "containerd-shim-runc-v2"
)

// Paths are the parts that a run is made of.
type Paths struct {
	Bin       string // containerd, ctr, the shims
	Kernel    string // of the guest
	Image     string // of the guest
	Busybox   string // static binary
	Archive   string // of the container image
	QEMU      string
	VirtioFSD string
	Templates string // directory, which is kept: they are those of what was built
}

// Find looks for the parts: in CCV2_BIN, CCV2_GUEST and CCV2_IMAGE, or where
// the Makefile puts them, and for another virtiofsd than the one that is built in
// CCV2_VIRTIOFSD. The error names all that are missing.
func Find() (Paths, error) {
	_, self, _, _ := runtime.Caller(0)
	build := filepath.Join(filepath.Dir(self), "..", "..", "..", "build")
	guest := cmp.Or(os.Getenv("CCV2_GUEST"), filepath.Join(build, "guest"))
	p := Paths{
		Bin:       cmp.Or(os.Getenv("CCV2_BIN"), filepath.Join(build, "bin")),
		Kernel:    filepath.Join(guest, "vmlinux"),
		Image:     filepath.Join(guest, "initrd.img"),
		Archive:   cmp.Or(os.Getenv("CCV2_IMAGE"), filepath.Join(build, "busybox.tar")),
		Busybox:   firstOf("/bin/busybox", "/usr/bin/busybox", filepath.Join(build, "busybox", "bin", "busybox")),
		VirtioFSD: cmp.Or(os.Getenv("CCV2_VIRTIOFSD"), filepath.Join(build, "virtiofsd", "virtiofsd")),
		Templates: filepath.Join(filepath.Dir(guest), "templates"),
	}
	var err error
	if p.QEMU, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return p, err
	}
	var missing []error
	for _, path := range []string{
		filepath.Join(p.Bin, "containerd"), filepath.Join(p.Bin, "ctr"), filepath.Join(p.Bin, ShimName),
		p.Kernel, p.Image, p.Archive, p.Busybox, p.VirtioFSD,
	} {
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, err)
		}
	}
	if len(missing) > 0 {
		return p, fmt.Errorf("run make e2e, which builds these: %w", errors.Join(missing...))
	}
	return p, nil
}

// DistributionVirtioFSD is the path of the distribution's file server.
func DistributionVirtioFSD() string {
	return firstOf("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/libexec/qemu/virtiofsd")
}

// firstOf returns the first path that exists, or else the first.
func firstOf(paths ...string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return paths[0]
}
