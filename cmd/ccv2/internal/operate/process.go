package operate

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// States of processes, as the kernel has them.
const (
	stopped = "T"
	gone    = ""
)

// process is what /proc says of a process.
type process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	State string `json:"state"` // a letter of the kernel; "" when it is gone
	// PSSBytes is its memory, with its part of what it shares.
	PSSBytes int64 `json:"pss_bytes"`
	// CPUNanoseconds is what it has used, of the user's and the kernel's time.
	CPUNanoseconds int64 `json:"cpu_nanoseconds"`
}

// clockTick is what the kernel counts a process's time in, on every architecture.
const clockTick = 10 * time.Millisecond

// look reads the state and the time of a process.
func look(name string, pid int) process {
	p := process{Name: name, PID: pid}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return p
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the first of them is number 3
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return p
	}
	p.State = fields[0]
	user, _ := strconv.ParseInt(fields[utime], 10, 64)
	kernel, _ := strconv.ParseInt(fields[stime], 10, 64)
	p.CPUNanoseconds = (time.Duration(user+kernel) * clockTick).Nanoseconds()
	return p
}

// measure is look with the memory, which takes the kernel some milliseconds.
func measure(name string, pid int) process {
	p := look(name, pid)
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup") // of one that has ended it is empty
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			p.PSSBytes = kib << 10
		}
	}
	return p
}
