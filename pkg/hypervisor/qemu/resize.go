package qemu

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

const (
	// blockMiB is the least memory that a virtio-mem device gives or takes.
	blockMiB = 2
	// sectionMiB is what Linux adds at once: of a device's region the guest can use no part
	// of one. What of the region was not asked for is not given to the guest.
	sectionMiB = 128
	// resizeRoomMiB is what the regions of several devices may have beyond what is asked for.
	resizeRoomMiB = 16 * sectionMiB
)

// grown is what a machine was resized to.
type grown struct {
	mu    sync.Mutex // held while it is resized; guards what follows
	more  hypervisor.Size
	times int // that memory was added
}

// memoryDevice is memory that is plugged. It is shared, as vhost-user devices need it: they
// map it when they are plugged, or are told.
type memoryDevice struct {
	id  string
	mib int
}

// DeviceID implements [hypervisor.Device].
func (d memoryDevice) DeviceID() string { return d.id }

// Resize implements [hypervisor.Resizer].
func (m *machine) Resize(ctx context.Context, to hypervisor.Size) error {
	m.grown.mu.Lock()
	defer m.grown.mu.Unlock()
	cpus := to.CPUs - m.spec.CPUs - m.grown.more.CPUs
	mib := to.MemoryMiB - m.spec.MemoryMiB - m.grown.more.MemoryMiB
	if err := resize(ctx, m, to, cpus, mib); err != nil {
		return m.classify(fmt.Sprintf("resize vm to %d cpus, %d MiB", to.CPUs, to.MemoryMiB), err)
	}
	return nil
}

// Grown implements [hypervisor.Resizer].
func (m *machine) Grown() hypervisor.Size {
	m.grown.mu.Lock()
	defer m.grown.mu.Unlock()
	return m.grown.more
}

func resize(ctx context.Context, m *machine, to hypervisor.Size, cpus, mib int) error {
	switch {
	case cpus < 0 || mib <= -blockMiB:
		return fmt.Errorf("it has more: %w", errdefs.ErrNotImplemented)
	case cpus > 0 && to.CPUs > m.spec.Max.CPUs, mib > 0 && to.MemoryMiB > m.spec.Max.MemoryMiB:
		return fmt.Errorf("it can have %d cpus, %d MiB: %w", max(m.spec.Max.CPUs, m.spec.CPUs), max(m.spec.Max.MemoryMiB, m.spec.MemoryMiB), errdefs.ErrResourceExhausted)
	}
	if mib > 0 {
		mib = (mib + blockMiB - 1) / blockMiB * blockMiB
		if err := m.plug(ctx, memoryDevice{id: fmt.Sprintf("memory%d", m.grown.times), mib: mib}); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		m.grown.times++
		m.grown.more.MemoryMiB += mib
	}
	return addCPUs(ctx, m, cpus)
}

// planMemory returns the steps that add memory.
func planMemory(d memoryDevice, back string) ([]step, object) {
	region := int64(d.mib+sectionMiB-1) / sectionMiB * sectionMiB << 20
	return []step{{
		command: "object-add", args: object{"qom-type": "memory-backend-memfd", "id": back, "size": region, "share": true},
		undo: "object-del", undoArg: object{"id": back},
	}}, object{"driver": "virtio-mem-pci", "memdev": back, "requested-size": int64(d.mib) << 20, "block-size": blockMiB << 20}
}

// addCPUs adds the first n vCPUs that are not there.
func addCPUs(ctx context.Context, m *machine, n int) error {
	if n == 0 {
		return nil
	}
	var all []struct {
		Type  string `json:"type"`
		Props object `json:"props"`
		Path  string `json:"qom-path"` // of one that is there
	}
	if err := m.monitor.Execute(ctx, "query-hotpluggable-cpus", nil, &all); err != nil {
		return fmt.Errorf("vcpus: %w", err)
	}
	for i := len(all) - 1; i >= 0 && n > 0; i-- { // the last is the first of the board
		cpu := all[i]
		if cpu.Path != "" {
			continue
		}
		args := object{"driver": cpu.Type, "id": fmt.Sprintf("cpu%d", m.spec.CPUs+m.grown.more.CPUs)}
		maps.Copy(args, cpu.Props)
		if err := m.monitor.Execute(ctx, "device_add", args, nil); err != nil {
			return fmt.Errorf("vcpu: %w", err)
		}
		m.grown.more.CPUs++
		n--
	}
	if n > 0 {
		return fmt.Errorf("vcpus: the machine has none that are not there: %w", errdefs.ErrResourceExhausted)
	}
	return nil
}
