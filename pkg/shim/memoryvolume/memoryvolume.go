package memoryvolume

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// What a kubelet names the directories of a pod: of the volumes that end with it, and of
// parts of volumes, which it mounts there.
const (
	emptyDirs = "/volumes/kubernetes.io~empty-dir/"
	subPaths  = "/volume-subpaths/"
)

// Of returns the volume in memory that a bind mount is of, and the path of the mount's
// source in it, "" for all of it. ok is false for everything else, and for the volumes of
// a pod with a user namespace, whose owners the host maps.
func Of(b share.Bind) (v hyperstart.MemoryVolume, below string, ok bool, err error) {
	if b.Pod == "" || strings.Contains(b.Pod, "/") || b.IDs.UIDs != "" || b.IDs.GIDs != "" {
		return v, "", false, nil
	}
	source, err := filepath.EvalSymlinks(b.Source) // as the table has it
	if err != nil {
		return v, "", false, nil //nolint:nilerr // whoever exposes it says what is wrong with it
	}
	pod, of, ok := strings.Cut(source, "/pods/"+b.Pod+"/")
	if !ok || !strings.Contains("/"+of, emptyDirs) && !strings.Contains("/"+of, subPaths) {
		return v, "", false, nil
	}
	table, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.FSType != "tmpfs", false })
	if err != nil {
		return v, "", false, fmt.Errorf("volume %s: read the host's mounts: %w", source, err)
	}
	volumes := pod + "/pods/" + b.Pod + emptyDirs
	dir, below, ok := find(table, source, volumes)
	if !ok {
		return v, "", false, nil
	}
	v, err = read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return v, "", false, nil // whoever exposes it says so
	}
	return v, below, err == nil, err
}

// find looks for the directory of the volume that has a source, and for the path below it.
func find(table []*mountinfo.Info, source, volumes string) (dir, below string, ok bool) {
	// What the source is in: the last mount counts, it hides those before it.
	var in *mountinfo.Info
	for _, m := range table {
		if source == m.Mountpoint || strings.HasPrefix(source, m.Mountpoint+"/") && (in == nil || len(m.Mountpoint) >= len(in.Mountpoint)) {
			in = m
		}
	}
	if in == nil {
		return "", "", false
	}
	for _, m := range table {
		name, inside := strings.CutPrefix(m.Mountpoint, volumes)
		if !inside || name == "" || strings.Contains(name, "/") || m.Root != "/" || m.Major != in.Major || m.Minor != in.Minor {
			continue
		}
		return m.Mountpoint, strings.TrimPrefix(filepath.Join(in.Root, strings.TrimPrefix(source, in.Mountpoint)), "/"), true
	}
	return "", "", false
}

// read reads how a volume is on the host.
func read(dir string) (hyperstart.MemoryVolume, error) {
	var st unix.Stat_t
	var at unix.Statfs_t
	err := unix.Stat(dir, &st)
	if err == nil {
		err = unix.Statfs(dir, &at)
	}
	if err != nil {
		return hyperstart.MemoryVolume{}, fmt.Errorf("volume %s: %w", dir, err)
	}
	return hyperstart.MemoryVolume{
		Name: filepath.Base(dir), Size: int64(at.Blocks) * at.Bsize, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
	}, nil
}
