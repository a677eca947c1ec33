package install

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoContainerd says that none runs, as while it is restarted.
var ErrNoContainerd = errors.New("no containerd runs on this host")

// HasRead reports whether a containerd of the host was started after the runtime was
// written into its configuration; what others have written there since does not count.
func HasRead(h Host) (bool, error) {
	r, err := h.load()
	if err != nil {
		return false, err
	}
	if r == nil {
		return false, errors.New("nothing is installed")
	}
	names, err := filepath.Glob(h.at("/proc/[0-9]*/comm"))
	if err != nil {
		return false, err
	}
	host, err := os.Readlink(h.at("/proc/1/ns/mnt"))
	if err != nil {
		return false, err
	}
	runs := false
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || string(comm) != "containerd\n" {
			continue
		}
		// That of a container is not the host's.
		if mounts, err := os.Readlink(filepath.Join(filepath.Dir(name), "ns/mnt")); err != nil || mounts != host {
			continue
		}
		started, err := startOf(filepath.Dir(name))
		if err == nil && started.After(r.Told) {
			return true, nil
		}
		runs = runs || err == nil
	}
	if !runs {
		return false, ErrNoContainerd
	}
	return false, nil
}

// Lost is the path of the file in which containerd was told of the runtime and does not
// find it any more: somebody has cut it out, or written the file anew. It is "" when
// nothing is missing.
func Lost(h Host) (string, error) {
	r, err := h.load()
	if err != nil {
		return "", err
	}
	if r == nil {
		return h.recordPath(), nil
	}
	for _, path := range slices.Sorted(maps.Keys(r.Blocks)) {
		text, err := h.read(path)
		if err != nil {
			return "", err
		}
		if !bytes.Contains(text, []byte(blockBegin)) {
			return path, nil
		}
	}
	for _, path := range slices.Sorted(maps.Keys(r.Files)) {
		if filepath.Base(path) != runtimeName+".toml" { // no drop-in
			continue
		}
		if text, err := h.read(path); err != nil || text == nil {
			return path, err
		}
	}
	return "", nil
}

// ticks are what the kernel counts the time of processes in, in a second.
const ticks = 100

// startOf is when a process was started, to a hundredth of a second.
func startOf(proc string) (time.Time, error) {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const start = 19 // of those after the name
	if len(fields) <= start {
		return time.Time{}, fmt.Errorf("%s/stat has %d fields", proc, len(fields))
	}
	since, err := strconv.ParseInt(fields[start], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, err
	}
	age := time.Duration(boot.Nano()) - time.Duration(since)*(time.Second/ticks)
	return time.Now().Add(-age), nil
}
