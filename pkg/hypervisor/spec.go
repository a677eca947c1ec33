package hypervisor

import "os"

// Accelerator is how guest code is executed.
type Accelerator string

// Accelerators. AccelAuto is resolved by the driver before the start.
const (
	AccelAuto Accelerator = "auto"
	AccelKVM  Accelerator = "kvm"
	AccelTCG  Accelerator = "tcg"
)

// Machine is the kind of board.
type Machine string

// Machines. MicroVM has no PCI bus, so nothing can be plugged into it.
const (
	MachineQ35     Machine = "q35"
	MachineMicroVM Machine = "microvm"
)

// Spec describes a VM before it is booted. It knows nothing of the pod: what
// belongs to the pod is plugged afterwards.
type Spec struct {
	// ID appears in the VMM's process title; the sandbox id.
	ID string
	// Binary is the path of the VMM.
	Binary string
	// NetNS is the network namespace that the VMM runs in; nil means this
	// process's. It stays the caller's.
	NetNS *os.File `json:"-"`
	// Dir is an existing directory of mode 0700 for the driver's own sockets: an
	// absolute path of at most 95 bytes. The caller owns it and removes it.
	Dir string

	Machine     Machine
	Accelerator Accelerator // AccelKVM or AccelTCG; AccelAuto is an error here
	Size
	// Max is what it can be resized to while it runs; zeros for no more than Size.
	Max Size
	// SharedMemory backs the RAM with a memfd that vhost-user devices can map.
	SharedMemory bool
	// Snapshot is what the VM goes on from instead of booting, or is to be saved to;
	// it needs SharedMemory.
	Snapshot *Snapshot `json:"-"`

	// Parked has the VMM outlive this process, so that another one can take it over; see
	// [Parker]. Until it is parked nothing ends it but its owner.
	Parked bool

	Image

	// Ports are the names of virtio-serial ports, as the guest sees them and as
	// they are dialled.
	Ports []string
	// Shares9P are 9p exports that exist from boot on (9p cannot be plugged).
	Shares9P []Share9P
}

// Image is what a VM boots.
type Image struct {
	Kernel string // path of a bzImage or of an ELF with a PVH note
	Initrd string // path, may be ""
	// KernelArgs are added to those that the driver needs.
	KernelArgs []string
}

// Size is how large a VM is.
type Size struct {
	CPUs      int // at least 1
	MemoryMiB int // at least 64
}

// Snapshot is a VM that is stopped. What goes on from one has an equal spec but for ID,
// NetNS and Dir.
type Snapshot struct {
	// Memory is the RAM, a file of MemoryMiB, which the VM changes. It stays the
	// caller's.
	Memory *os.File
	// Devices is what [Saver] has returned; nil for a VM that boots.
	Devices []byte
	// Filled, when set, returns when Memory has its content; its error is that of the
	// start. The VMM starts meanwhile, and does not look at it before.
	Filled func() error
}

// Share9P is one 9p export.
type Share9P struct {
	Tag string
	Dir string
}

// Device is something that can be plugged: [BlockDevice], [NetDevice] or
// [FSDevice].
type Device interface {
	// DeviceID is unique within the VM: letters, digits, '-' and '_', at most 32.
	DeviceID() string
}

// BlockDevice is a virtio-blk disk. What frees space in it frees it on the host.
type BlockDevice struct {
	ID string
	// File is an open file or block device of the host, in raw format, that can be
	// written unless ReadOnly is set; Plug passes it to the VMM and does not close it.
	// Others may have it open, and write to it.
	File     *os.File
	ReadOnly bool
	// Serial identifies the disk in the guest; at most 20 bytes.
	Serial string
}

// NetDevice is a virtio-net interface on an open tap.
type NetDevice struct {
	ID  string
	MAC string
	MTU int // 0 means the guest's default
	// Tap is an open tap device; Plug passes it to the VMM and does not close it.
	Tap *os.File
	// Vhost, where it is not nil, is an open /dev/vhost-net, which is for this interface
	// alone: the host's kernel then carries the frames. Plug does with it as with Tap.
	Vhost *os.File
}

// FSDevice is a vhost-user-fs device served by a virtiofsd on Socket.
type FSDevice struct {
	ID     string
	Tag    string // at most 36 bytes
	Socket string
}

// DeviceID implements [Device].
func (d BlockDevice) DeviceID() string { return d.ID }

// DeviceID implements [Device].
func (d NetDevice) DeviceID() string { return d.ID }

// DeviceID implements [Device].
func (d FSDevice) DeviceID() string { return d.ID }
