package qemu

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
)

// slotTable knows what is plugged into which slot of the bridge.
type slotTable struct {
	mu    sync.Mutex // guards what follows
	slots []*plugged // nil is free
}

// plugged is one device that occupies a slot, from before it is added until
// its back-end is gone.
type plugged struct {
	id   string
	slot int
	gone chan struct{} // closed when the guest has released the device

	// What follows belongs to the caller that set busy.
	steps []step // what was done to add it
	asked bool   // the guest was asked to release it

	// What follows is guarded by the table's mu.
	ejected bool // gone is closed
	busy    bool // a Plug or an Unplug works on it
}

func newSlotTable(n int) *slotTable { return &slotTable{slots: make([]*plugged, n)} }

// ids are those of the devices that have a slot.
func (t *slotTable) ids() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []string
	for _, p := range t.slots {
		if p != nil {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// reserve takes a free slot for a device, which is busy until it is idle.
func (t *slotTable) reserve(id string) (*plugged, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	free := -1
	for i, p := range t.slots {
		if p == nil && free < 0 {
			free = i
		}
		if p != nil && p.id == id {
			return nil, fmt.Errorf("the device is plugged already: %w", errdefs.ErrAlreadyExists)
		}
	}
	if free < 0 {
		return nil, fmt.Errorf("all %d hot-plug slots are taken: %w",
			len(t.slots), errdefs.ErrResourceExhausted)
	}
	p := &plugged{id: id, slot: free, gone: make(chan struct{}), busy: true}
	t.slots[free] = p
	return p, nil
}

// take finds a plugged device and makes it busy.
func (t *slotTable) take(id string) (*plugged, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.slots {
		if p == nil || p.id != id {
			continue
		}
		if p.busy {
			return nil, fmt.Errorf("the device is being plugged or unplugged: %w", errdefs.ErrFailedPrecondition)
		}
		p.busy = true
		return p, nil
	}
	return nil, fmt.Errorf("no such device: %w", errdefs.ErrNotFound)
}

// idle ends the work on p.
func (t *slotTable) idle(p *plugged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.busy = false
}

// free gives the slot of p back.
func (t *slotTable) free(p *plugged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slots[p.slot] = nil
}

// isDeviceDeleted selects the events for [slotTable.deleted].
func isDeviceDeleted(ev qmp.Event) bool { return ev.Name == "DEVICE_DELETED" }

// deleted notes that the guest has released a device, whether it was asked or not.
func (t *slotTable) deleted(ev qmp.Event) {
	var data struct {
		Device string `json:"device"`
	}
	if json.Unmarshal(ev.Data, &data) != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.slots {
		if p != nil && qdevID(p.id) == data.Device && !p.ejected {
			p.ejected = true
			close(p.gone)
		}
	}
}
