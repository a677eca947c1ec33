package template

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
)

// Driver makes VMs that can be saved.
type Driver interface {
	hypervisor.Driver
	// Fingerprint has a line for each fact that decides what a VM can go on from.
	Fingerprint(spec hypervisor.Spec) (string, error)
}

// VM is what a template is made of.
type VM struct {
	Driver Driver
	// Version is that of ccv2.
	Version string
	// Spec is that of the pods' VMs, without what belongs to a pod.
	Spec hypervisor.Spec
	// Dialect is what the guest speaks, if that is known.
	Dialect hyperstart.Dialect
	// Sizes are those of templates; without any, each VM has one of its own size.
	Sizes Sizes
}

// Fits tells why there can be no template of such VMs; nil when there can.
func (vm VM) Fits() error {
	switch {
	case vm.Spec.Machine != hypervisor.MachineQ35:
		return fmt.Errorf("a machine of type %s takes no devices later: %w", vm.Spec.Machine, errdefs.ErrNotImplemented)
	case !vm.Spec.SharedMemory || len(vm.Spec.Shares9P) > 0:
		return fmt.Errorf("a share of type 9p is there from the boot on: %w", errdefs.ErrNotImplemented)
	case !vm.Dialect.MayQuiesce():
		return fmt.Errorf("a guest of dialect %s cannot be prepared for it: %w", vm.Dialect, errdefs.ErrNotImplemented)
	}
	return nil
}

// facts are all that a template of the VM depends on.
func (vm VM) facts() (string, error) {
	spec := vm.template()
	spec.Ports = Ports()
	spec.ID, spec.Dir = "template", "/"
	fingerprint, err := vm.Driver.Fingerprint(spec)
	if err != nil {
		return "", err
	}
	return "ccv2 " + vm.Version + "\n" + fingerprint, nil
}

// Key is that of the VM's template.
func (vm VM) Key() (Key, error) {
	facts, err := vm.facts()
	return KeyOf(facts), err
}

// Ports are those of a VM.
func Ports() []string { return []string{layout.CtlPort, layout.TTYPort} }

// Wanted reports whether there is no template for the VM, one can be made, and nobody does.
// When that has failed not long ago, failed is why.
func (s *Store) Wanted(vm VM) (wanted bool, failed string) {
	if vm.Fits() != nil {
		return false, ""
	}
	key, err := vm.Key()
	if err != nil {
		return false, ""
	}
	if _, err := s.Open(key); !errors.Is(err, errdefs.ErrNotFound) {
		return false, ""
	}
	if failed := s.Failed(key); failed != "" {
		return false, failed
	}
	_, made := s.makers().Holder()
	return !made, ""
}

// Make boots a VM and makes a template of it, unless there is one. When another process
// makes one it is errdefs.ErrUnavailable, unless the store waits; ctx bounds it. Nothing is left of what fails but
// the reason, for [Store.Failed].
func (s *Store) Make(ctx context.Context, vm VM) (*Template, error) {
	if err := errors.Join(vm.Fits(), s.checkDir()); err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	facts, err := vm.facts()
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	key := KeyOf(facts)
	unlock, err := s.turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("make template %s: %w", key, err)
	}
	defer unlock()
	if t, err := s.Open(key); err == nil {
		s.setFailed(key, nil) // who asks for it wants larger VMs to go on from it again
		return t, nil
	}
	err = s.make(ctx, vm, key, facts)
	if !errors.Is(ctx.Err(), context.Canceled) { // else nobody waits for it any more
		s.setFailed(key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make template %s: %w", key, err)
	}
	return s.Open(key)
}

func (s *Store) make(ctx context.Context, vm VM, key Key, facts string) (err error) {
	spec := vm.template()
	if err := errors.Join(s.sweep(), HasRoom(spec.MemoryMiB)); err != nil {
		return err
	}
	part := s.path(key) + partSuffix
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	dir := filepath.Join(part, "vm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	memory, err := newMemory(spec.MemoryMiB)
	if err != nil {
		return err
	}
	defer memory.Close()
	spec.ID, spec.Dir, spec.Ports = "template", dir, Ports()
	spec.Snapshot = &hypervisor.Snapshot{Memory: memory}
	devices, err := bootAndSave(ctx, vm, spec)
	if err != nil {
		return err
	}
	index := Index{Version: formatVersion, Facts: facts, Made: time.Now(), MemoryMiB: spec.MemoryMiB, CPUs: spec.CPUs}
	index.Devices = Extent{Length: int64(len(devices)), CRC: crc32.Checksum(devices, castagnoli)}
	if err := os.WriteFile(filepath.Join(part, devicesFile), devices, 0o600); err != nil {
		return err
	}
	if index.Memory, err = saveMemory(filepath.Join(part, memoryFile), memory, int64(spec.MemoryMiB)<<20); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), jsonfile.Write(filepath.Join(part, indexFile), index)); err != nil {
		return err
	}
	if err := errors.Join(s.Remove(key), os.Rename(part, s.path(key))); err != nil {
		return err
	}
	return s.clean()
}

// A maker's guest has, beside what its kernel needs for each page, what it has booted with
// and what it writes zeros to.
const (
	makerMiB       = 1024
	makerPartOfMiB = 64
)

// HasRoom is why the host has no room for a VM with some MiB of memory; nil when it has.
func HasRoom(mib int) error { return hasRoom(mib, "/proc/meminfo") }

// hasRoom finds out whether the host has the memory that a maker needs for a while. It may
// be half of what is available, so that nothing else on the host is ended for it.
func hasRoom(mib int, meminfo string) error {
	info, err := os.ReadFile(meminfo)
	if err != nil {
		return err
	}
	available := 0
	for line := range strings.Lines(string(info)) {
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &available); n == 1 {
			available >>= 10
			break
		}
	}
	if needed := min(mib, makerMiB+mib/makerPartOfMiB); needed > available/2 {
		return fmt.Errorf("it takes %d MiB of memory for a while, and the host has %d available: %w", needed, available, errdefs.ErrResourceExhausted)
	}
	return nil
}

func saveMemory(path string, memory *os.File, size int64) ([]Extent, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	all, err := writeMemory(file, memory, size)
	return all, errors.Join(err, file.Close())
}

const (
	// consoleLines is how many of the last lines of the guest an error has.
	consoleLines = 40
	// endGrace is how much later than the connection to the guest the end of the VMM may be noticed.
	endGrace = 200 * time.Millisecond
)

// Describe adds to an error of a VM that is prepared what tells why: how the VMM has ended, if it has, and what the
// guest said.
func Describe(vm hypervisor.VM, err error) error {
	select {
	case <-vm.Done():
		err = fmt.Errorf("vm ended by itself: qemu %s: %w", vm.Exit(), err)
	case <-time.After(endGrace):
	}
	if lines := vm.ConsoleTail(consoleLines); len(lines) > 0 {
		err = fmt.Errorf("%w; last console lines:\n  %s", err, strings.Join(lines, "\n  "))
	}
	return err
}

// bootAndSave returns the devices of a VM whose guest is ready for a pod. The VM has ended.
func bootAndSave(ctx context.Context, vm VM, spec hypervisor.Spec) (devices []byte, err error) {
	running, err := vm.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, running.Kill(context.WithoutCancel(ctx))) }()
	if err := quiesce(ctx, running, vm.Dialect); err != nil {
		return nil, Describe(running, err)
	}
	saver, ok := running.(hypervisor.Saver)
	if !ok {
		return nil, fmt.Errorf("this kind of vm cannot be saved: %w", errdefs.ErrNotImplemented)
	}
	return saver.Save(ctx)
}

// quiesce waits for the guest, and has it prepare itself.
func quiesce(ctx context.Context, vm hypervisor.VM, dialect hyperstart.Dialect) (err error) {
	var conns [2]net.Conn
	for i, port := range Ports() {
		if conns[i], err = vm.Dial(ctx, port); err != nil {
			return err // the VM ends, and its connections
		}
	}
	server := proxy.NewServer(proxy.Options{Dialect: dialect})
	defer server.Close()
	guest, err := client.Dial(ctx, client.Options{Server: server, VM: "template", Ctl: conns[0], TTY: conns[1]})
	if err != nil {
		return fmt.Errorf("wait for guest: %w", err)
	}
	defer guest.Close()
	able, ok := guest.(interface {
		Quiesce(ctx context.Context) error
	})
	if !ok {
		return fmt.Errorf("a guest of dialect %s cannot be prepared for it: %w", guest.Dialect(), errdefs.ErrNotImplemented)
	}
	if err := able.Quiesce(ctx); err != nil {
		return fmt.Errorf("prepare guest: %w", err)
	}
	return nil
}
