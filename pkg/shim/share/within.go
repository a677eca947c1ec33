package share

import (
	"strings"

	"golang.org/x/sys/unix"
)

// A directory of a volume that is mounted by itself (a subPath) is not exposed
// again while the volume is: the guest finds it below the volume. What makes it
// the same directory is its place in the file system, for a kubelet mounts it at
// a path of its own.

// canContain reports whether a source could be found below a volume: it differs
// in nothing but where it is.
func (k mountKey) canContain(inner mountKey) bool {
	k.ino = inner.ino
	return k == inner && k.below == "" && k.mapped == 0 && k.live == ""
}

// isAt reports whether a path below a directory leads to the source, over no
// link and no other mount.
func (s *source) isAt(dir int, path string) bool {
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var there, here unix.Stat_t
	if unix.Fstat(fd, &there) != nil || unix.Fstat(s.fd, &here) != nil {
		return false
	}
	return there.Dev == here.Dev && there.Ino == here.Ino
}

// emptyDirs is what a kubelet names the directory of the volumes that a pod
// alone has, and that end with it.
const emptyDirs = "/volumes/kubernetes.io~empty-dir/"

// emptyDir opens the pod's own volume that has the source, nil when there is
// none, and returns the path below it. Such a volume may be exposed as a whole
// where a directory of it is asked for, since it has nothing of anybody else;
// another one may have the files of other pods.
//
// The uid in the path must be the pod's: a path of the host in a pod's
// specification could be one of another pod.
func (s *source) emptyDir() (outer *source, rel string) {
	pod := s.bind.Pod
	if pod == "" || strings.Contains(pod, "/") || s.place.fs == "" {
		return nil, ""
	}
	for _, m := range s.table {
		if device(m) != s.place.fs {
			continue
		}
		inner, ok := cutDir(s.place.path, m.Root)
		if !ok {
			continue
		}
		path := strings.TrimSuffix(m.Mountpoint, "/") + "/" + inner
		root, rest, ok := strings.Cut(path, "/pods/"+pod+emptyDirs)
		name, rel, deeper := strings.Cut(rest, "/")
		if !ok || !deeper || rel == "" {
			continue
		}
		b := s.bind
		b.Source = root + "/pods/" + pod + emptyDirs + name
		outer, err := openSource(b)
		if err != nil {
			continue // the mount is out of reach
		}
		if outer.key.canContain(s.key) && s.isAt(outer.fd, rel) {
			return outer, rel
		}
		outer.close()
	}
	return nil, ""
}
