package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	good := goldenSpec()
	good.Binary, good.Kernel, good.Initrd = fakeBinary(t, "exit 0"), fakeKernel(t), filepath.Join(dir, "initrd")
	write(t, good.Initrd, "")
	if err := validate(good); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", maxDir)
	tests := []struct {
		name   string
		change func(*hypervisor.Spec)
		class  error
		want   string
	}{
		{"id", func(s *hypervisor.Spec) { s.ID = "a,b" }, errdefs.ErrInvalidArgument, `id "a,b"`},
		{"machine", func(s *hypervisor.Spec) { s.Machine = "pc" }, errdefs.ErrInvalidArgument, `machine "pc"`},
		{"accelerator", func(s *hypervisor.Spec) { s.Accelerator = hypervisor.AccelAuto }, errdefs.ErrInvalidArgument, `"auto"`},
		{"cpus", func(s *hypervisor.Spec) { s.CPUs = 0 }, errdefs.ErrInvalidArgument, "cpus 0"},
		{"memory", func(s *hypervisor.Spec) { s.MemoryMiB = 1 }, errdefs.ErrInvalidArgument, "memory 1 MiB"},
		{"ports", func(s *hypervisor.Spec) { s.Ports = make([]string, 31) }, errdefs.ErrInvalidArgument, "31 ports"},
		{"port name", func(s *hypervisor.Spec) { s.Ports[0] = "a b" }, errdefs.ErrInvalidArgument, `"a b"`},
		{"port twice", func(s *hypervisor.Spec) { s.Ports[1] = s.Ports[0] }, errdefs.ErrInvalidArgument, "two ports"},
		{"long directory", func(s *hypervisor.Spec) { s.Dir = long }, errdefs.ErrInvalidArgument, "96 bytes"},
		{"relative directory", func(s *hypervisor.Spec) { s.Dir = "a" }, errdefs.ErrInvalidArgument, `"a"`},
		{"tag", func(s *hypervisor.Spec) { s.Shares9P = []hypervisor.Share9P{{Dir: "/"}} }, errdefs.ErrInvalidArgument, "9p tag"},
		{"share", func(s *hypervisor.Spec) { s.Shares9P = []hypervisor.Share9P{{Tag: "a", Dir: "b"}} }, errdefs.ErrInvalidArgument, `"b"`},
		{"kernel argument", func(s *hypervisor.Spec) { s.KernelArgs = []string{"a\nb"} }, errdefs.ErrInvalidArgument, "control"},
		{"two", func(s *hypervisor.Spec) { s.CPUs, s.MemoryMiB = 0, 0 }, errdefs.ErrInvalidArgument, "cpus 0: want at least 1; memory"},
		{"no binary", func(s *hypervisor.Spec) { s.Binary = "/no/qemu" }, errdefs.ErrNotFound, "/no/qemu: not found; install"},
		{"binary is a directory", func(s *hypervisor.Spec) { s.Binary = dir }, errdefs.ErrInvalidArgument, "executable"},
		{"no kernel", func(s *hypervisor.Spec) { s.Kernel = "/no/kernel" }, errdefs.ErrNotFound, "kernel /no/kernel"},
		{"garbage kernel", func(s *hypervisor.Spec) { s.Kernel = good.Initrd }, errdefs.ErrInvalidArgument, "neither a bzImage"},
		{"kernel without a note", func(s *hypervisor.Spec) { s.Kernel = "/proc/self/exe" }, errdefs.ErrInvalidArgument, "neither a bzImage"},
		{"no image", func(s *hypervisor.Spec) { s.Initrd = "/no/initrd" }, errdefs.ErrNotFound, "guest image /no/initrd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := good
			spec.Ports = slices.Clone(good.Ports)
			tt.change(&spec)
			err := validate(spec)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want class %v and %q", err, tt.class, tt.want)
			}
		})
	}
}

// fakeBinary is a program that is not QEMU.
func fakeBinary(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeKernel passes for a bzImage.
func fakeKernel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bzImage")
	write(t, path, strings.Repeat("\x00", 0x202)+"HdrS")
	return path
}

func TestStartFails(t *testing.T) {
	tests := []struct {
		name, script string
		want         string
	}{
		{"exits", "echo it broke >&2; exit 3", "exited with code 3: it broke"},
		{"dies", "kill -9 $$", "died of signal killed"},
		{"talks nonsense", "echo nonsense >&3; exec sleep 1000", "qmp greeting: decode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := goldenSpec()
			spec.Binary, spec.Kernel, spec.Initrd = fakeBinary(t, tt.script), fakeKernel(t), ""
			_, err := New().Start(t.Context(), spec)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "start qemu: ") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestStartCancelled starts something that never greets.
func TestStartCancelled(t *testing.T) {
	spec := goldenSpec()
	pidfile := filepath.Join(t.TempDir(), "pid")
	spec.Binary, spec.Kernel, spec.Initrd = fakeBinary(t, "mkfifo "+pidfile+" 2>/dev/null; echo here >"+pidfile+"; exec sleep 1000"), fakeKernel(t), ""
	ctx, cancel := context.WithCancel(t.Context())
	if err := makeFIFO(pidfile); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = os.ReadFile(pidfile) // returns when the program runs
		cancel()
	}()
	if _, err := New().Start(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
