package machine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
)

// Majors of character devices, Documentation/admin-guide/devices.txt.
const (
	ttyMajor      = 4
	firstSerial   = 64 // minor below ttyMajor; before it are virtual consoles
	miscMajor     = 10 // each minor is a driver of its own
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

// hasDriver asks the kernel.
func hasDriver(major, minor int64) bool {
	if major == miscMajor {
		return listed("/proc/misc", minor)
	}
	return listed("/proc/devices", major)
}

// listed reports whether a number begins a line of a list, of which that of the
// character devices ends with an empty line.
func listed(path string, number int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		if first, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); first == strconv.FormatInt(number, 10) {
			return true
		}
	}
	return false
}
