package sandboxes

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// States of processes, as the kernel has them.
const (
	Stopped = "T"
	Gone    = ""
)

// Process is what /proc says of a process.
type Process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	State string `json:"state"` // a letter of the kernel; "" when it is gone
	// PSSBytes is its memory, with its part of what it shares.
	PSSBytes int64 `json:"pss_bytes"`
	// CPUNanoseconds is what it has used, of the user's and the kernel's time.
	CPUNanoseconds int64 `json:"cpu_nanoseconds"`
	// Reads and writes are system calls, whatever the files are.
	Reads        int64 `json:"reads,omitempty"`
	ReadBytes    int64 `json:"read_bytes,omitempty"`
	Writes       int64 `json:"writes,omitempty"`
	WrittenBytes int64 `json:"written_bytes,omitempty"`
}

// clockTick is what the kernel counts a process's time in, on every architecture.
const clockTick = 10 * time.Millisecond

// Look reads the state and the time of a process.
func Look(name string, pid int) Process {
	p := Process{Name: name, PID: pid}
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

// Measure is Look with the memory, which takes the kernel some milliseconds, and with what it has read and written. The children of
// a virtiofsd, which does its work in one, count as it; its state is theirs, for the parent only waits for them.
func Measure(name string, pid int) Process {
	p := Look(name, pid)
	p.PSSBytes = number(pid, "smaps_rollup", "Pss:") << 10
	p.Reads, p.ReadBytes = number(pid, "io", "syscr:"), number(pid, "io", "rchar:")
	p.Writes, p.WrittenBytes = number(pid, "io", "syscw:"), number(pid, "io", "wchar:")
	if name != "virtiofsd" {
		return p
	}
	for i, child := range children(pid) {
		c := Measure(name, child)
		if p.State != Gone && (i == 0 || c.State == Stopped) {
			p.State = c.State
		}
		p.CPUNanoseconds += c.CPUNanoseconds
		p.PSSBytes += c.PSSBytes
		p.Reads, p.ReadBytes = p.Reads+c.Reads, p.ReadBytes+c.ReadBytes
		p.Writes, p.WrittenBytes = p.Writes+c.Writes, p.WrittenBytes+c.WrittenBytes
	}
	return p
}

// number reads a number from a file of a process, which one that has ended does not have.
func number(pid int, file, key string) int64 {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok && len(strings.Fields(rest)) > 0 {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// children are the pids of a process's children.
func children(pid int) (pids []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for field := range strings.FieldsSeq(string(b)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}
