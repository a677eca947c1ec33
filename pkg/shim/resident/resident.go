package resident

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Trimmer trims a process that has something to give back and nothing to do. Its zero
// value is ready.
type Trimmer struct {
	used    time.Duration // processor time, at the last tick
	trimmed bool          // and nothing but ticks since then
}

// What a process does between two ticks: an idle one answers signs of life, a busy one would need at once
// again what it gives back.
const (
	idleTime = 5 * time.Millisecond
	busyTime = 200 * time.Millisecond
)

// Tick is to be called at regular intervals of some seconds. It trims the process once after
// each time of work, not while it works, and not while it idles on.
func (t *Trimmer) Tick() error {
	used, err := processorTime()
	if err != nil {
		return fmt.Errorf("trim memory: %w", err)
	}
	if !t.due(used) {
		return nil
	}
	if err := Trim(); err != nil {
		return err
	}
	t.used, err = processorTime() // without that of trimming
	return err
}

// due notes the processor time of a tick, and reports whether it is time to trim.
func (t *Trimmer) due(used time.Duration) bool {
	took := used - t.used
	first := t.used == 0
	t.used = used
	if took > idleTime {
		t.trimmed = false
	}
	if t.trimmed || took > busyTime && !first { // what it has taken to start says nothing
		return false
	}
	t.trimmed = true
	return true
}

func processorTime() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// Trim gives the process's memory that nothing uses back to the host: what is free of the
// heap, and the pages of its program, which stay in the host's page cache, are shared
// with the other processes of the program, and are mapped again when they are needed.
func Trim() error {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("trim memory: %w", err)
	}
	defer f.Close()
	mappings, err := clean(f)
	if err != nil {
		return fmt.Errorf("trim memory: %w", err)
	}
	var errs []error
	for _, m := range mappings {
		if err := m.drop(); err != nil {
			errs = append(errs, fmt.Errorf("trim memory: mapping at %#x: %w", m.start, err))
		}
	}
	return errors.Join(errs...)
}

// mapping is a range of addresses.
type mapping struct {
	start, end uintptr
}

// drop unmaps the pages. Each is read from its file again when it is touched.
func (m mapping) drop() error {
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	if errno != 0 {
		return errno
	}
	return nil
}

// clean returns the mappings that hold nothing but what their files do: private ones of
// a file that cannot be written to and have no page of their own. Mappings that the loader has
// written to before it took the right away, of programs that are relocated, have such pages.
// The form is that of proc_pid_smaps(5).
func clean(smaps io.Reader) ([]mapping, error) {
	var found []mapping
	var current *mapping
	own := 0 // KiB that are not the file's
	done := func() {
		if current != nil && own == 0 {
			found = append(found, *current)
		}
		current, own = nil, 0
	}
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		name, isField := strings.CutSuffix(fields[0], ":")
		if !isField {
			done()
			m, ok, err := parse(fields)
			if err != nil {
				return nil, err
			}
			if ok {
				current = &m
			}
			continue
		}
		switch name {
		case "Anonymous", "Swap", "Locked":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			own += n
		}
	}
	done()
	return found, lines.Err()
}

// parse returns the mapping of a line such as
//
//	00400000-00885000 r-xp 00000000 08:01 1234 /usr/bin/program
//
// ok is false for one that is writable, shared or of no file.
func parse(fields []string) (m mapping, ok bool, err error) {
	const permissions, inode = 1, 4
	if len(fields) <= inode {
		return mapping{}, false, errors.New("a mapping has too few fields")
	}
	perms := fields[permissions]
	if len(perms) != 4 || perms[0] != 'r' || perms[1] == 'w' || perms[3] != 'p' || fields[inode] == "0" {
		return mapping{}, false, nil
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err := strconv.ParseUint(from, 16, int(unsafe.Sizeof(uintptr(0)))*8)
	if err != nil {
		return mapping{}, false, err
	}
	end, err := strconv.ParseUint(to, 16, int(unsafe.Sizeof(uintptr(0)))*8)
	if err != nil {
		return mapping{}, false, err
	}
	return mapping{start: uintptr(start), end: uintptr(end)}, true, nil
}
