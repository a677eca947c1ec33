package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The containerds that the tests run: the oldest and the newest.
var (
	oldestTested = [2]int{1, 6}
	newestTested = [2]int{2, 4}
)

// checkContainerd says which containerd runs, or else which one is installed. proc
// is where the process file system is.
func checkContainerd(ctx context.Context, proc string) finding {
	programs := runningContainerds(proc)
	how := "runs"
	if len(programs) == 0 {
		path, err := exec.LookPath("containerd")
		if err != nil {
			return warn("containerd does not run, and is not on the PATH of this shell", "install containerd 1.6 or later")
		}
		programs, how = []string{path}, "is installed and does not run"
	}
	var said []string
	worst := finding{verdict: verdictOK}
	for _, program := range programs {
		f := containerdIn(ctx, program, how)
		said = append(said, f.detail)
		if f.verdict == verdictFail || f.verdict == verdictWarn && worst.verdict == verdictOK {
			worst = f
		}
	}
	worst.detail = strings.Join(said, "\n")
	return worst
}

// runningContainerds are the programs of the daemons that run. Those of other users
// and of containers are left alone, because the program is run to ask it.
func runningContainerds(proc string) []string {
	names, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm"))
	if err != nil {
		return nil
	}
	self, err := os.Readlink(filepath.Join(proc, "self", "ns", "mnt"))
	if err != nil {
		return nil
	}
	// That of a host, where a pod of the DaemonSet has this run in the host's files.
	host, err := os.Readlink(filepath.Join(proc, "1", "ns", "mnt"))
	if err != nil {
		host = self
	}
	var found []string
	for _, name := range names {
		dir := filepath.Dir(name)
		comm, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(comm)) != "containerd" {
			continue
		}
		if mounts, err := os.Readlink(filepath.Join(dir, "ns", "mnt")); err != nil || mounts != self && mounts != host {
			continue
		}
		program := filepath.Join(dir, "exe")
		var st unix.Stat_t
		if err := unix.Stat(program, &st); err != nil || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			continue
		}
		found = append(found, program)
	}
	return found
}

// containerdVersion is what `containerd --version` prints: the package, the
// version and a revision.
var containerdVersion = regexp.MustCompile(`^containerd \S+ (v?(\d+)\.(\d+)\S*)`)

// containerdIn asks a containerd for its version.
func containerdIn(ctx context.Context, program, how string) finding {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return fail(fmt.Sprintf("%s --version: %v", program, err), "install containerd again")
	}
	found := containerdVersion.FindStringSubmatch(string(out))
	if found == nil {
		return warn(fmt.Sprintf("%s --version says %q", program, strings.TrimSpace(string(out))), "install a release of containerd")
	}
	major, err1 := strconv.Atoi(found[2])
	minor, err2 := strconv.Atoi(found[3])
	if err := errors.Join(err1, err2); err != nil {
		return warn(err.Error(), "install a release of containerd")
	}
	detail := fmt.Sprintf("%s %s", found[1], how)
	switch v := [2]int{major, minor}; {
	case less(v, oldestTested):
		return fail(detail, "install containerd 1.6 or later")
	case less(newestTested, v):
		return warn(detail+"; tested are 1.6 to 2.4", "look for a newer release of ccv2, or use it knowing that")
	}
	return ok("%s", detail)
}

// less compares a major version and a minor one.
func less(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }
