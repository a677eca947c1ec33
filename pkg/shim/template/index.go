package template

import (
	"errors"
	"fmt"
	"time"
)

// formatVersion is the version of the files.
const formatVersion = 1

// Index is what a template consists of.
type Index struct {
	Version int `json:"version"`
	// Facts are the lines of the VM's fingerprint.
	Facts     string    `json:"facts"`
	Made      time.Time `json:"made"`
	MemoryMiB int       `json:"memoryMiB"`
	CPUs      int       `json:"cpus"`
	// Memory are the parts of the memory that are not zeros, in order.
	Memory []Extent `json:"memory"`
	// Devices is their state, a file of its own.
	Devices Extent `json:"devices"`
}

// Extent is a part of a file.
type Extent struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	CRC    uint32 `json:"crc"` // CRC-32C
}

// Bytes is what the template takes on disk.
func (x *Index) Bytes() int64 {
	sum := x.Devices.Length
	for _, e := range x.Memory {
		sum += e.Length
	}
	return sum
}

// maxDevices bounds the state of the devices, as the driver does.
const maxDevices = 16 << 20

// check finds out whether this version can use what it has read.
func (x *Index) check(key Key) error {
	size := int64(x.MemoryMiB) << 20
	switch {
	case x.Version != formatVersion:
		return fmt.Errorf("it has format version %d, want %d", x.Version, formatVersion)
	case KeyOf(x.Facts) != key:
		return errors.New("it is that of another vm")
	case x.Devices.Length <= 0 || x.Devices.Length > maxDevices:
		return fmt.Errorf("it has %d bytes of devices", x.Devices.Length)
	}
	end := int64(0)
	for _, e := range x.Memory {
		if e.Offset < end || e.Length <= 0 || e.Length > maxExtent || e.Offset > size-e.Length {
			return fmt.Errorf("it has memory at %d, %d bytes, out of order or outside of the vm's", e.Offset, e.Length)
		}
		end = e.Offset + e.Length
	}
	return nil
}
