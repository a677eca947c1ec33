package machine

import (
	"fmt"
	"os"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
)

// Majors of character devices, Documentation/admin-guide/devices.txt.
const (
	ttyMajor      = 4
	firstSerial   = 64 // minor below ttyMajor; before it are virtual consoles
	firstPTY      = 136
	lastPTY       = 143
	firstDynamic  = 234
	lastDynamic   = 254
	firstDynamic2 = 384 // and up
)

// HasCharDevice reports whether a character device of the host's numbers is the same in
// this guest: its driver is there, or in the image, and is no hardware. Numbers that
// kernels hand out as they come mean something else here.
func (m *Machine) HasCharDevice(major, minor int64) bool {
	switch {
	case major >= firstDynamic && major <= lastDynamic, major >= firstDynamic2, major == ttyMajor && minor >= firstSerial:
		return false
	case hasDriver(major, minor):
		return true
	}
	// As the kernel asks when it is opened.
	for _, request := range []string{fmt.Sprintf("char-major-%d-%d", major, minor), fmt.Sprintf("char-major-%d", major)} {
		if _, err := loadRequested(request); err != nil {
			console.Logf("%v", err)
		}
	}
	return hasDriver(major, minor)
}

// hasDriver asks the kernel, which lists what its drivers have found: one without
// hardware is no device. Terminals of devpts come and go, and are in no list.
func hasDriver(major, minor int64) bool {
	if major >= firstPTY && major <= lastPTY {
		return true
	}
	_, err := os.Stat(fmt.Sprintf("/sys/dev/char/%d:%d", major, minor))
	return err == nil
}
