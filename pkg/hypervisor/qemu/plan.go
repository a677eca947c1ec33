package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// step is one monitor command and its inverse.
type step struct {
	command string
	args    object
	file    *os.File // passed with the command; may be nil
	undo    string   // the command that takes it back
	undoArg object
	// passedOn says that the next step that is not uses it up, even when that fails,
	// so that there may be nothing to take back.
	passedOn bool
}

// object is a set of command arguments.
type object map[string]any

// plan returns the steps that add dev to slot: its back-ends, and last the
// device that the guest sees. Back-ends are named by their slot, for QEMU
// allows some of their names 31 bytes only.
func plan(dev hypervisor.Device, slot int, spec hypervisor.Spec) ([]step, error) {
	var (
		steps []step
		front object
		err   error
	)
	switch d := dev.(type) {
	case hypervisor.BlockDevice:
		steps, front, err = planBlock(d, slot)
	case hypervisor.NetDevice:
		steps, front, err = planNet(d, fmt.Sprintf("net%d", slot))
	case memoryDevice:
		steps, front = planMemory(d, fmt.Sprintf("mem%d", slot))
	case hypervisor.FSDevice:
		steps, front, err = planFS(d, fmt.Sprintf("fs%d", slot), spec.SharedMemory)
	default:
		err = fmt.Errorf("device of type %T: %w", dev, errdefs.ErrNotImplemented)
	}
	if err != nil {
		return nil, err
	}
	// Ids of devices begin with a letter in QEMU.
	front["id"], front["bus"], front["addr"] = qdevID(dev.DeviceID()), hotplugBus, fmt.Sprintf("0x%x", slot+1)
	return append(steps, step{
		command: "device_add", args: front,
		undo: "device_del", undoArg: object{"id": front["id"]},
	}), nil
}

func qdevID(id string) string { return "dev-" + id }

// planBlock hands the open file on, so that QEMU opens nothing of the host by itself.
func planBlock(d hypervisor.BlockDevice, slot int) ([]step, object, error) {
	const maxSerial = 20 // of virtio-blk
	if len(d.Serial) > maxSerial {
		return nil, nil, fmt.Errorf("serial %q: more than %d bytes: %w", d.Serial, maxSerial, errdefs.ErrInvalidArgument)
	}
	if d.File == nil {
		return nil, nil, fmt.Errorf("disk without an open file: %w", errdefs.ErrInvalidArgument)
	}
	info, err := d.File.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("disk: %w", err)
	}
	back, fds := fmt.Sprintf("disk%d", slot), object{"fdset-id": slot}
	file := object{"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", slot)}
	front := object{"driver": "virtio-blk-pci-non-transitional", "drive": back}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		file["driver"] = "host_device"
		front["share-rw"] = true // as for all who open it on the host
		if err := sectors(d.File, front); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, fmt.Errorf("disk %s: neither a file nor a block device: %w", d.File.Name(), errdefs.ErrInvalidArgument)
	}
	// The format is given, never probed: a guest could write another format's
	// header into a raw disk and have any file of the host opened.
	node := object{"driver": "raw", "node-name": back, "read-only": d.ReadOnly, "file": file}
	if !d.ReadOnly {
		node["discard"] = "unmap" // space that the guest frees goes back to the host
	}
	if d.Serial != "" {
		front["serial"] = d.Serial
	}
	return []step{
		{command: "add-fd", args: fds, file: d.File, undo: "remove-fd", undoArg: fds},
		{command: "blockdev-add", args: node, undo: "blockdev-del", undoArg: object{"node-name": back}},
	}, front, nil
}

// sectors gives the guest's disk the sectors of the host's: partition tables and file
// systems count in them, and what is written in whole ones is not torn.
func sectors(disk *os.File, front object) error {
	conn, err := disk.SyscallConn()
	if err != nil {
		return fmt.Errorf("sectors of disk: %w", err)
	}
	for property, request := range map[string]uint{"logical_block_size": unix.BLKSSZGET, "physical_block_size": unix.BLKPBSZGET} {
		var size int
		errControl := conn.Control(func(fd uintptr) { size, err = unix.IoctlGetInt(int(fd), request) })
		if err := errors.Join(errControl, err); err != nil {
			return fmt.Errorf("sectors of disk %s: %w", disk.Name(), err)
		}
		front[property] = size
	}
	return nil
}

func planNet(d hypervisor.NetDevice, back string) ([]step, object, error) {
	if d.Tap == nil {
		return nil, nil, fmt.Errorf("interface without an open tap: %w", errdefs.ErrInvalidArgument)
	}
	mac, err := net.ParseMAC(d.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return nil, nil, fmt.Errorf("mac %q: want the address of one interface: %w", d.MAC, errdefs.ErrInvalidArgument)
	}
	// No option ROM: there is nothing to boot from a hot-plugged interface.
	front := object{"driver": "virtio-net-pci-non-transitional", "netdev": back, "mac": mac.String(), "romfile": ""}
	const minMTU, maxMTU = 68, 65535 // RFC 791, and the field's width
	switch {
	case d.MTU == 0:
	case d.MTU < minMTU || d.MTU > maxMTU:
		return nil, nil, fmt.Errorf("mtu %d: want %d to %d: %w", d.MTU, minMTU, maxMTU, errdefs.ErrInvalidArgument)
	default:
		front["host_mtu"] = d.MTU
	}
	steps, tap := []step{passFD(back, d.Tap)}, object{"type": "tap", "id": back, "fd": back, "vhost": false}
	if d.Vhost != nil {
		vhost := back + "-vhost"
		steps = append(steps, passFD(vhost, d.Vhost))
		// With force it is an error if the kernel does not take it, and not a netdev that is not there.
		tap["vhost"], tap["vhostforce"], tap["vhostfd"] = true, true, vhost
	}
	return append(steps, step{command: "netdev_add", args: tap, undo: "netdev_del", undoArg: object{"id": back}}), front, nil
}

// passFD has QEMU keep a file until a later step uses it up.
func passFD(name string, file *os.File) step {
	fd := object{"fdname": name}
	return step{command: "getfd", args: fd, file: file, undo: "closefd", undoArg: fd, passedOn: true}
}

func planFS(d hypervisor.FSDevice, back string, sharedMemory bool) ([]step, object, error) {
	const maxTag = 36 // of virtiofs
	switch {
	case !sharedMemory:
		return nil, nil, fmt.Errorf("virtiofs needs a vm with shared memory: %w", errdefs.ErrFailedPrecondition)
	case d.Tag == "" || len(d.Tag) > maxTag:
		return nil, nil, fmt.Errorf("tag %q: want 1 to %d bytes: %w", d.Tag, maxTag, errdefs.ErrInvalidArgument)
	}
	addr := object{"type": "unix", "data": object{"path": d.Socket}}
	socket := object{"type": "socket", "data": object{"addr": addr, "server": false}}
	return []step{{
		command: "chardev-add", args: object{"id": back, "backend": socket},
		undo: "chardev-remove", undoArg: object{"id": back},
	}}, object{"driver": "vhost-user-fs-pci", "chardev": back, "tag": d.Tag}, nil
}
