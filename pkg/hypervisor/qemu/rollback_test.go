package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp/qmptest"
)

// scripted returns a machine with one slot and without a process, whose monitor the test plays.
// deliver hands the next event to the machine.
func scripted(t *testing.T) (m *machine, qemu *qmptest.Server, deliver func()) {
	t.Helper()
	client, qemu := qmptest.Dial(t)
	events := client.Subscribe(eventQueue, isDeviceDeleted)
	m = &machine{spec: hypervisor.Spec{Machine: hypervisor.MachineQ35, SharedMemory: true}, monitor: client, slots: newSlotTable(1)}
	return m, qemu, func() { m.slots.deleted(<-events.C) }
}

// free is the number of free slots.
func free(m *machine) (n int) {
	m.slots.mu.Lock()
	defer m.slots.mu.Unlock()
	for _, p := range m.slots.slots {
		if p == nil {
			n++
		}
	}
	return n
}

// TestPlugRollback has QEMU refuse every step of the longest plans in turn.
func TestPlugRollback(t *testing.T) {
	t.Run("interface", func(t *testing.T) {
		testPlugRollback(t, hypervisor.NetDevice{ID: "eth0", MAC: "02:00:00:00:00:01", Tap: os.Stdin},
			[]string{"getfd", "netdev_add", "device_add"}, [][]string{
				{"closefd"},
				{"netdev_del", "closefd"},
				{"device_del", "netdev_del"}, // which has used the descriptor up
			})
	})
	t.Run("interface with vhost", func(t *testing.T) {
		testPlugRollback(t, hypervisor.NetDevice{ID: "eth0", MAC: "02:00:00:00:00:01", Tap: os.Stdin, Vhost: os.Stdin},
			[]string{"getfd", "getfd", "netdev_add", "device_add"}, [][]string{
				{"closefd"},
				{"closefd", "closefd"},
				{"netdev_del", "closefd", "closefd"},
				{"device_del", "netdev_del"},
			})
	})
	t.Run("disk", func(t *testing.T) {
		testPlugRollback(t, hypervisor.BlockDevice{ID: "disk", File: openDisk(t, diskImage(t, "x"), os.O_RDWR)},
			[]string{"add-fd", "blockdev-add", "device_add"}, [][]string{
				{"remove-fd"},
				{"blockdev-del", "remove-fd"},
				{"device_del", "blockdev-del", "remove-fd"},
			})
	})
}

func testPlugRollback(t *testing.T, device hypervisor.Device, plan []string, undone [][]string) {
	t.Helper()
	for i, refused := range plan {
		t.Run(refused, func(t *testing.T) {
			m, qemu, _ := scripted(t)
			done := make(chan error, 1)
			go func() { done <- m.Plug(t.Context(), device) }()
			for _, command := range plan[:i] {
				c := qemu.Expect(command)
				if c.File != nil {
					c.File.Close()
				}
				qemu.Return(c, "{}")
			}
			qemu.Refuse(qemu.Expect(refused), "GenericError", "no")
			for j, command := range undone[i] {
				c := qemu.Expect(command)
				if j == 0 && i > 0 { // there is nothing to take back
					qemu.Refuse(c, "DeviceNotFound", "not found")
				} else {
					qemu.Return(c, "{}")
				}
			}
			if err := <-done; !errors.Is(err, &qmp.Error{Command: refused}) {
				t.Errorf("error %v", err)
			}
			if free(m) != 1 {
				t.Error("the slot is not free")
			}
		})
	}
}

// TestPlugAbandoned ends the context while QEMU is about to add the device,
// which then appears, and is undone.
func TestPlugAbandoned(t *testing.T) {
	m, qemu, deliver := scripted(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Plug(ctx, hypervisor.FSDevice{ID: "fs", Tag: "fs", Socket: "/x"}) }()
	qemu.Return(qemu.Expect("chardev-add"), "{}")
	add := qemu.Expect("device_add")
	cancel()
	del := qemu.Expect("device_del")
	qemu.Return(add, "{}")
	qemu.Return(del, "{}")
	qemu.Event("DEVICE_DELETED", `{"device": "dev-fs", "path": "/machine/peripheral/dev-fs"}`)
	deliver()
	qemu.Return(qemu.Expect("chardev-remove"), "{}")
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if free(m) != 1 {
		t.Error("the slot is not free")
	}
}

// plugFS plugs a device on a scripted machine.
func plugFS(t *testing.T, m *machine, qemu *qmptest.Server) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Plug(t.Context(), hypervisor.FSDevice{ID: "fs", Tag: "fs", Socket: "/x"}) }()
	qemu.Return(qemu.Expect("chardev-add"), "{}")
	c := qemu.Expect("device_add")
	var args struct{ ID, Bus, Chardev string }
	if err := json.Unmarshal(c.Arguments, &args); err != nil || args.ID != "dev-fs" || args.Bus != hotplugBus || args.Chardev != "fs0" {
		t.Errorf("device_add %s, %v", c.Arguments, err)
	}
	qemu.Return(c, "{}")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func unplugFS(ctx context.Context, t *testing.T, m *machine) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Unplug(ctx, "fs") }()
	return done
}

// TestUnplugUnasked has the guest throw the device out by itself: nobody waits
// for a guest that has done its part.
func TestUnplugUnasked(t *testing.T) {
	m, qemu, deliver := scripted(t)
	plugFS(t, m, qemu)
	for range 2 { // the second one means nothing
		qemu.Event("DEVICE_DELETED", `{"device": "dev-fs"}`)
		deliver()
	}
	qemu.Event("DEVICE_DELETED", `{"path": "/machine/peripheral/dev-fs/virtio-backend"}`)
	deliver()
	qemu.Event("DEVICE_DELETED", `[]`)
	deliver()
	done := unplugFS(t.Context(), t, m)
	qemu.Return(qemu.Expect("chardev-remove"), "{}")
	if err := <-done; err != nil || free(m) != 1 {
		t.Errorf("%v, %d free slots", err, free(m))
	}
}

// TestUnplugAgain asks a guest that answered neither in time nor, at first, at
// all.
func TestUnplugAgain(t *testing.T) {
	m, qemu, deliver := scripted(t)
	plugFS(t, m, qemu)
	ctx, cancel := context.WithCancel(t.Context())
	done := unplugFS(ctx, t, m)
	qemu.Return(qemu.Expect("device_del"), "{}")
	if err := m.Unplug(t.Context(), "fs"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("two at once: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || free(m) != 0 {
		t.Errorf("%v, %d free slots", err, free(m))
	}
	done = unplugFS(t.Context(), t, m)
	qemu.Refuse(qemu.Expect("device_del"), "GenericError", "already in the process of unplug")
	qemu.Event("DEVICE_DELETED", `{"device": "dev-fs"}`)
	deliver()
	qemu.Return(qemu.Expect("chardev-remove"), "{}")
	if err := <-done; err != nil || free(m) != 1 {
		t.Errorf("%v, %d free slots", err, free(m))
	}
}

// TestUnplugEnds loses the VM while the guest is waited for.
func TestUnplugEnds(t *testing.T) {
	m, qemu, _ := scripted(t)
	plugFS(t, m, qemu)
	done := unplugFS(t.Context(), t, m)
	qemu.Return(qemu.Expect("device_del"), "{}")
	qemu.Close()
	if err := <-done; !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestUnplugRefused(t *testing.T) {
	m, qemu, _ := scripted(t)
	plugFS(t, m, qemu)
	done := unplugFS(t.Context(), t, m)
	qemu.Refuse(qemu.Expect("device_del"), "GenericError", "Bus does not support hotplugging")
	if err := <-done; !errors.Is(err, &qmp.Error{Class: qmp.ClassGeneric}) || free(m) != 0 {
		t.Errorf("%v, %d free slots", err, free(m))
	}
}
