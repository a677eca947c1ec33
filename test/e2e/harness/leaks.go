//go:build e2e

package harness

import (
	"bufio"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cleanWithin is how long a test may leave something of its own: containerd
// gives the delete command 5 s, and a host that emulates several processors at
// once needs some more.
var cleanWithin = patient(15 * time.Second)

// CheckClean fails the test when it left anything behind, and removes what it
// left, so that the next test starts clean.
func (h *Host) CheckClean(tb testing.TB) {
	tb.Helper()
	if !h.wantClean(tb) {
		h.sweep(tb)
	}
}

// wantClean fails the test when it left anything behind.
func (h *Host) wantClean(tb testing.TB) bool {
	tb.Helper()
	var left []string
	begin := time.Now()
	if within(cleanWithin, func() bool { left = h.leftovers(); return len(left) == 0 }) {
		if took := time.Since(begin); took > time.Second {
			tb.Logf("clean after %s", took.Round(time.Millisecond))
		}
		return true
	}
	tb.Errorf("left behind %s after the test:\n  %s", cleanWithin, strings.Join(left, "\n  "))
	return false
}

// leftovers lists what belongs to the Host and should not be there between tests.
func (h *Host) leftovers() []string {
	var left []string
	for _, p := range slices.DeleteFunc(h.Processes(), h.ofPool) {
		left = append(left, fmt.Sprintf("process %d: %s", p.PID, strings.Join(p.Args, " ")))
	}
	for _, m := range h.mounts() {
		left = append(left, "mount "+m)
	}
	for _, dir := range h.transient() {
		left = append(left, h.files(dir)...)
	}
	left = append(left, h.deadSockets()...)
	left = append(left, h.cgroups()...)
	left = append(left, h.units()...)
	left = append(left, h.sockets()...)
	return append(left, h.interfaces()...)
}

// transient are the directories that are empty when nothing runs.
func (h *Host) transient() []string {
	task := filepath.Join("io.containerd.runtime.v2.task", h.Namespace)
	return []string{
		h.StateDir(), h.FIFODir(), h.socketDir(),
		filepath.Join(h.Dir, "state", task), filepath.Join(h.Dir, "root", task),
	}
}

// files lists what is below a directory, which itself may be missing.
func (h *Host) files(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == ".ended" { // journals of sandboxes that have ended, of which a bounded number stays
			return fs.SkipDir
		}
		if withSpares && path == h.pool() {
			return fs.SkipDir
		}
		if path != dir && err == nil { // what vanishes while we look is not left behind
			found = append(found, fmt.Sprintf("file %s (%s)", path, d.Type()))
		}
		return nil
	})
	return found
}

// mounts lists the mount points below the Host's directory, in the order of
// mounting.
func (h *Host) mounts() []string {
	return grep("/proc/self/mountinfo", h.Dir+"/", func(fields []string) string {
		const mountPoint = 4
		if len(fields) > mountPoint && strings.HasPrefix(fields[mountPoint], h.Dir+"/") {
			return fields[mountPoint]
		}
		return ""
	})
}

// sockets lists bound Unix sockets that are not containerd's. A bound socket
// whose file was removed still shows here.
func (h *Host) sockets() []string {
	return grep("/proc/net/unix", h.Dir+"/", func(fields []string) string {
		path := fields[len(fields)-1]
		if strings.HasPrefix(path, h.socketPath()) || h.kept(path) {
			return ""
		}
		return "socket " + path
	})
}

// deadSockets lists new sockets in the usual place that nobody serves. Their names
// are hashes; one that is served is somebody else's, or its shim is listed.
func (h *Host) deadSockets() []string {
	var found []string
	for _, path := range usualSockets() {
		if slices.Contains(h.foreign, path) {
			continue
		}
		conn, err := net.Dial("unix", path) //nolint:noctx // a socket of this machine does not keep anybody waiting
		if err != nil {
			found = append(found, fmt.Sprintf("socket %s: %v", path, err))
			continue
		}
		_ = conn.Close() // nothing was said
	}
	return found
}

// usualSockets are the sockets of shims of containerds before 2.3.
func usualSockets() []string {
	matches, _ := filepath.Glob("/run/containerd/s/*") // the pattern is well-formed
	return matches
}

// interfaces lists what is in containerd's network namespace beside lo.
func (h *Host) interfaces() []string {
	if h.containerd == nil {
		return nil
	}
	return grep(fmt.Sprintf("/proc/%d/net/dev", h.containerd.Process.Pid), ":", func(fields []string) string {
		if name := strings.TrimSuffix(fields[0], ":"); !strings.Contains(name, "|") && name != "lo" && name != bridge {
			return "network interface " + name
		}
		return ""
	})
}

// grep passes the fields of the lines of a file that contain text to pick, and
// returns what is not "".
func grep(path, text string, pick func(fields []string) string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var found []string
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		line := scanner.Text()
		if !strings.Contains(line, text) {
			continue
		}
		if s := pick(strings.Fields(line)); s != "" {
			found = append(found, s)
		}
	}
	return found
}

// sweep removes what a failed test has left.
func (h *Host) sweep(tb testing.TB) {
	tb.Helper()
	for _, p := range h.Processes() {
		_ = unix.Kill(p.PID, unix.SIGKILL) // gone already is what we want
	}
	for _, group := range h.cgroups() {
		_ = os.Remove(strings.TrimPrefix(group, "cgroup ")) // busy while the processes end
	}
	for _, dir := range slices.Backward(h.mounts()) {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			tb.Logf("unmount %s: %v", dir, err)
		}
	}
	if len(h.mounts()) > 0 {
		return // what is mounted must not be deleted
	}
	for _, dir := range h.transient() {
		entries, _ := os.ReadDir(dir) // may be missing
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				tb.Logf("sweep: %v", err)
			}
		}
	}
}
