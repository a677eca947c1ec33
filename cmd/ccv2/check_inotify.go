package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// inotifyPods is how many pods of a node are to have an inotify instance each: as many as
// a kubelet lets run by itself.
const inotifyPods = 110

// checkInotify counts the inotify instances that root has left, of which a pod with a
// volume that the kubelet changes needs one.
func checkInotify(proc string) finding {
	path := filepath.Join(proc, "sys/fs/inotify/max_user_instances")
	text, err := os.ReadFile(path)
	if err == nil {
		var limit int
		if limit, err = strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return inotifyLeft(limit, inotifyUsed(proc))
		}
	}
	return warn(err.Error()+": changed ConfigMaps, Secrets and the like are looked for once a second", "use a kernel with inotify")
}

func inotifyLeft(limit, used int) finding {
	f := ok("root has %d instances, %d in use: one for each pod with ConfigMaps, Secrets and the like", limit, used)
	if left := max(limit-used, 0); left < inotifyPods {
		f.verdict = verdictWarn
		f.detail += ", and for more than " + strconv.Itoa(left) + " such pods changes are looked for once a second"
		f.fix = "raise fs.inotify.max_user_instances to 1024 (sysctl, and a file in /etc/sysctl.d)"
	}
	return f
}

// inotifyUsed counts the instances of root's processes, as far as they can be seen. One
// that processes share counts for each.
func inotifyUsed(proc string) int {
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	if err != nil {
		return 0
	}
	used := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != "anon_inode:inotify" {
			continue
		}
		info, err := os.Stat(filepath.Dir(filepath.Dir(fd)))
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
			used++
		}
	}
	return used
}
