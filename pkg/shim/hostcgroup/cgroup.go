package hostcgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Root is where cgroup file systems are mounted.
const Root = "/sys/fs/cgroup"

// root is Root but in tests.
var root = Root //nolint:gochecknoglobals // for tests

// controllers are the v1 hierarchies that account for a sandbox or limit it.
var controllers = []string{"memory", "cpu", "cpuacct", "cpuset", "blkio", "pids"}

// Path turns a cgroupsPath of the OCI specification into a path below a
// hierarchy: "/a/b" stays, "parent.slice:prefix:name", systemd's form, becomes
// "/parent.slice/prefix-name.scope" with all slices that a slice stands in.
func Path(cgroupsPath string) (string, error) {
	parts := strings.Split(cgroupsPath, ":")
	switch {
	case len(parts) == 1:
		path := filepath.Join("/", cgroupsPath)
		if path == "/" {
			return "", fmt.Errorf("cgroup path %q: names no group: %w", cgroupsPath, errdefs.ErrInvalidArgument)
		}
		return path, nil
	case len(parts) == 3 && strings.HasSuffix(parts[0], ".slice") && parts[2] != "" && !strings.Contains(cgroupsPath, "/"):
		scope := parts[2]
		if parts[1] != "" {
			scope = parts[1] + "-" + scope
		}
		if !strings.HasSuffix(scope, ".slice") {
			scope += ".scope"
		}
		return filepath.Join(expandSlice(parts[0]), scope), nil
	}
	return "", fmt.Errorf("cgroup path %q: is neither a path nor slice:prefix:name: %w", cgroupsPath, errdefs.ErrInvalidArgument)
}

// expandSlice returns the path of a slice: a-b.slice stands in a.slice.
func expandSlice(slice string) string {
	name := strings.TrimSuffix(slice, ".slice")
	path, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			continue
		}
		prefix += part
		path = filepath.Join(path, prefix+".slice")
		prefix += "-"
	}
	return path
}

// Group is a cgroup on this host, one directory per hierarchy.
type Group struct {
	path    string
	dirs    map[string]string // controller to directory; "" for the unified hierarchy
	origins map[string]string // where this process was before Enter
}

// Create makes the group, with the controllers of the host that account for it or
// limit it. One that exists is not an error.
func Create(path string) (*Group, error) {
	g, err := Open(path)
	if err != nil {
		return nil, err
	}
	for controller, dir := range g.dirs {
		if controller == "" {
			err = createUnified(path)
		} else {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil && controller == "cpuset" {
			err = initCPUSet(dir)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create cgroup: %w", err), g.Remove())
		}
	}
	return g, nil
}

// Open returns the group without making it.
func Open(path string) (*Group, error) {
	hierarchies, err := hierarchies()
	if err != nil {
		return nil, err
	}
	g := &Group{path: path, dirs: make(map[string]string), origins: make(map[string]string)}
	for controller, top := range hierarchies {
		g.dirs[controller] = filepath.Join(top, path)
	}
	return g, nil
}

// hierarchies finds what is mounted: controller to directory, or the unified
// hierarchy alone.
func hierarchies() (map[string]string, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return map[string]string{"": root}, nil
	}
	found := make(map[string]string)
	for _, controller := range controllers {
		dir := filepath.Join(root, controller)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			found[controller] = dir
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find cgroups: nothing is mounted below %s: %w", root, errdefs.ErrUnavailable)
	}
	return found, nil
}

// Add moves a process into the group. A process that has ended is not an error.
func (g *Group) Add(pid int) error {
	for _, dir := range g.dirs {
		if err := addTo(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// Enter moves this process into the group, and remembers where it was. What it
// starts from now on starts in the group, so that nothing is charged elsewhere.
// With v1 it stays out of the hierarchies that limit processor time, until
// [Group.EnterAll].
func (g *Group) Enter() error {
	origins, err := ownGroups()
	if err != nil {
		return err
	}
	g.origins = origins
	for controller, dir := range g.dirs {
		if g.limitsTime(controller) {
			continue
		}
		if err := addTo(dir, os.Getpid()); err != nil {
			return err
		}
	}
	return nil
}

// limitsTime reports whether a v1 hierarchy is one that limits processor time, or
// is mounted together with it.
func (g *Group) limitsTime(controller string) bool {
	switch controller {
	case "cpu", "cpuset":
		return true
	case "cpuacct":
		own, ownErr := os.Stat(g.dirs["cpuacct"])
		cpu, cpuErr := os.Stat(g.dirs["cpu"])
		return ownErr == nil && cpuErr == nil && os.SameFile(own, cpu)
	}
	return false
}

// EnterAll moves everything that is in the group, in any hierarchy, into all of
// them.
func (g *Group) EnterAll() error {
	moved := make(map[int]bool)
	for { // a process that starts another one meanwhile
		pids, err := g.Processes()
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return moved[pid] })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := g.Add(pid); err != nil {
				return err
			}
			moved[pid] = true
		}
	}
}

// Leave moves this process back, so that the group can be removed.
func (g *Group) Leave() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for controller, origin := range g.origins {
		if top, ok := roots[controller]; ok {
			if err := addTo(filepath.Join(top, origin), os.Getpid()); err != nil {
				return err
			}
		}
	}
	return nil
}

func addTo(dir string, pid int) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("move process %d into cgroup: %w", pid, err)
	}
	return nil
}

// ownGroups reads which groups this process is in: controller to path.
func ownGroups() (map[string]string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find own cgroup: %w", err)
	}
	defer func() { _ = f.Close() }()
	groups := make(map[string]string)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3) // id:controllers:path
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			groups[controller] = parts[2]
		}
	}
	return groups, lines.Err()
}

// OOMKills is how many processes of the group the kernel has killed because they
// were out of memory.
func (g *Group) OOMKills() (uint64, error) {
	file := "memory.events"
	dir, ok := g.dirs[""]
	if !ok {
		file, dir = "memory.oom_control", g.dirs["memory"]
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, fmt.Errorf("count oom kills: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return strconv.ParseUint(n, 10, 64)
		}
	}
	return 0, nil
}

// Processes returns the pids of the processes in the group, each once.
func (g *Group) Processes() ([]int, error) {
	var pids []int
	for _, dir := range g.dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // removed before or after the file was opened
		}
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup: %w", err)
		}
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// Remove removes the group, and the parents that this leaves empty are left
// alone: they belong to others. A group that is gone is not an error.
func (g *Group) Remove() error {
	var errs []error
	for _, dir := range g.dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			errs = append(errs, fmt.Errorf("remove cgroup: %w (processes: %s)", err, strings.Fields(string(procs))))
		}
	}
	return errors.Join(errs...)
}

// initCPUSet gives a v1 cpuset the processors and nodes of its parent: a new
// one has none and takes no process.
func initCPUSet(dir string) error {
	if dir == filepath.Join(root, "cpuset") {
		return nil
	}
	if err := initCPUSet(filepath.Dir(dir)); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(own))) > 0 {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), parent, 0); err != nil { //nolint:gosec // Path has cleaned what is below Root
			return err
		}
	}
	return nil
}
