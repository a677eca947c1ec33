// Package blockdev gives containers block devices of the host, as disks of the VM: what a
// specification lists in linux.devices and has a rule about is opened by its number and
// plugged, and the guest is told which disk it is.
//
// A [Table] is that of one VM. A device is plugged once, however many containers have it,
// and unplugged when the last one lets go of it. Only who may write has a disk that can be
// written: the guest's word is not taken for that. A [View] is what one container has.
//
// A disk is being plugged, there, and gone from the table before it is unplugged: who
// comes then gets another one. What the guest does not release in time is unplugged with the
// next container that comes or goes. Table.mu is a leaf, and not held while a device is opened,
// plugged or unplugged. The package has no goroutines.
//
// An operator attaches others by their paths ([Table.Attach]), which no container has.
//
// It must not know sandboxes, what runs in the guest, and how it finds the disk.
package blockdev
