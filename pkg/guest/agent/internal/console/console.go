package console

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Logf writes one line to the console, which the host keeps the tail of. Only
// errors go there: the console is slow and usually the only log of a guest.
func Logf(format string, args ...any) {
	line := write(format, args...)
	if to := forward.Load(); to != nil {
		(*to)(line)
	}
}

// forward gets the lines of Logf as well.
var forward atomic.Pointer[func(line string)]

// Forward has the lines of Logf go to the host's log, too.
func Forward(to func(line string)) { forward.Store(&to) }

func write(format string, args ...any) (line string) {
	line = strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	fmt.Fprintf(os.Stderr, "ccv2-agent: %s\n", line)
	return line
}

// Fatal reports why the guest cannot continue and powers it off.
func Fatal(err error) {
	write("fatal: %v", err) // the host may be what does not answer
	PowerOff()
}

// Guard turns a panic of its goroutine into one console line and a power-off;
// as PID 1 an unrecovered panic would end in a kernel panic that hides it.
func Guard() {
	if r := recover(); r != nil {
		Fatal(fmt.Errorf("panic: %v at %s", r, panicSite(debug.Stack())))
	}
}

// panicSite returns file and line of the innermost frame of this module that
// is not part of the panic's own machinery.
func panicSite(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	start := 0
	for i, line := range lines {
		if strings.HasPrefix(line, "panic(") {
			start = i + 2
		}
	}
	for _, line := range lines[min(start, len(lines)):] {
		if strings.HasPrefix(line, "\t") && !strings.Contains(line, "/runtime/") {
			site, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			return site
		}
	}
	return "unknown place"
}

// PowerOff ends the VM. It returns only where the process may not do that.
func PowerOff() {
	unix.Sync()
	if os.Getpid() != 1 {
		os.Exit(1)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	// A machine without ACPI cannot power off; a reset ends it under -no-reboot.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
