package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// changed reads a directory, of which meanwhile names are removed, made and replaced.
func (t try) changed(n int) {
	dir, names := t.filled(n)
	unread, err := open(dir, 300)
	l, err2 := open(dir, 300)
	begin, err3 := l.some()
	t.say("begin", errors.Join(err, err2, err3), len(begin) > 0)
	gone := func(i int) bool { return i%3 == 0 }
	for i, name := range names {
		if gone(i) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)), os.WriteFile(filepath.Join(dir, "new"+name), nil, 0o600))
		}
	}
	t.say("change", err)
	left := without(names, gone)
	rest, err := l.rest()
	stayed := map[string]bool{".": true, "..": true}
	for _, name := range left {
		stayed[name] = true
	}
	var of []entry
	for _, e := range append(begin, rest...) {
		if stayed[e.name] {
			of = append(of, e)
		}
	}
	t.say("those that stayed", err, difference(of, left))

	now := left
	for i, name := range names {
		if gone(i) {
			now = append(now, "new"+name)
		}
	}
	all, err := unread.rest()
	t.say("in one that was not read", err, difference(all, now), l.wrong(all))
	_, err = unix.Seek(l.fd, 0, unix.SEEK_SET)
	all, err2 = l.rest()
	t.say("from the beginning", errors.Join(err, err2), difference(all, now), l.wrong(all))
	name := filepath.Join(dir, now[0])
	err = errors.Join(os.Remove(name), os.Mkdir(name, 0o700), os.Mkdir(filepath.Join(dir, "sub"), 0o700), os.Rename(filepath.Join(dir, "sub"), filepath.Join(dir, "moved")))
	_, err2 = unix.Seek(l.fd, 0, unix.SEEK_SET)
	all, err3 = l.rest()
	t.say("replaced", errors.Join(err, err2, err3), difference(all, append(now, "moved")), l.wrong(all))
	t.say("remove", errors.Join(l.close(), unread.close(), os.RemoveAll(dir)))
}

// removed directories are empty for those who have them open.
func (t try) removed() {
	dir, names := t.filled(40)
	unread, err := open(dir, 300)
	l, err2 := open(dir, 300)
	_, err3 := l.some()
	whole, err4 := open(dir, 1<<20)
	_, err5 := whole.some()
	t.say("open", errors.Join(err, err2, err3, err4, err5))
	for _, name := range names {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	t.say("remove", errors.Join(err, os.Remove(dir)))
	for _, l := range []*list{unread, l, whole} {
		some, err := l.some()
		t.say("read", err, len(some))
		_, err = unix.Seek(l.fd, 0, unix.SEEK_SET)
		some, err2 := l.some()
		t.say("read from the beginning", errors.Join(err, err2), len(some))
		var st unix.Stat_t
		t.say("state", unix.Fstat(l.fd, &st), st.Nlink)
		_, err = unix.Openat(l.fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		t.say("make a file", err)
		_, err = unix.Openat(l.fd, ".", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		t.say("open it", err)
		t.say("sync", errors.Join(unix.Fsync(l.fd), l.close()))
	}
	// Another one of the same name is another one.
	err = os.Mkdir(dir, 0o700)
	l, err2 = open(dir, 300)
	all, err3 := l.rest()
	t.say("made again", errors.Join(err, err2, err3, l.close(), os.Remove(dir)), difference(all, nil))
}

// emptied removes what it reads, as rm -r does.
func (t try) emptied(n int) {
	dir, names := t.filled(n)
	l, err := open(dir, 32<<10)
	var seen int
	for {
		some, err2 := l.some()
		if err = errors.Join(err, err2); err != nil || len(some) == 0 {
			break
		}
		for _, e := range some {
			if e.name != "." && e.name != ".." {
				seen++
				flags := 0
				if e.kind == unix.DT_DIR {
					flags = unix.AT_REMOVEDIR
				}
				err = errors.Join(err, unix.Unlinkat(l.fd, e.name, flags))
			}
		}
	}
	t.say("read and remove", errors.Join(err, l.close()), len(names)-seen)
	t.say("remove", os.Remove(dir))
}

// calls are those that take the descriptor of a directory.
func (t try) calls() {
	dir, names := t.filled(30)
	small, err := open(dir, 20)
	_, err2 := small.some()
	t.say("buffer too small", errors.Join(err, err2))
	small.buf = make([]byte, 4096)
	all, err := small.rest()
	t.say("large enough", errors.Join(err, small.close()), difference(all, names))
	l, err := open(dir, 4096)
	for _, what := range []string{"unread", "read"} {
		t.say(what+": sync", errors.Join(err, unix.Fsync(l.fd), unix.Fdatasync(l.fd), unix.Syncfs(l.fd)))
		other, err := open(dir, 100)
		t.say("lock", errors.Join(err, unix.Flock(l.fd, unix.LOCK_EX|unix.LOCK_NB)))
		t.say("lock it twice", unix.Flock(other.fd, unix.LOCK_EX|unix.LOCK_NB))
		t.say("unlock", errors.Join(unix.Flock(l.fd, unix.LOCK_UN), other.close()))
		_, err = unix.IoctlGetTermios(l.fd, unix.TCGETS)
		t.say("terminal", err)
		_, err = unix.IoctlGetInt(l.fd, unix.FS_IOC_GETFLAGS)
		t.say("flags", err)
		_, err = unix.Read(l.fd, make([]byte, 10))
		t.say("read", err)
		_, err = unix.Mmap(l.fd, 0, 10, unix.PROT_READ, unix.MAP_SHARED)
		t.say("map", err)
		t.say("truncate", unix.Ftruncate(l.fd, 0))
		_, err = unix.Seek(l.fd, -1, unix.SEEK_SET)
		t.say("seek", err)
		t.say("mode, owner, times", errors.Join(unix.Fchmod(l.fd, 0o750), unix.Fchown(l.fd, 1, 2), unix.Futimes(l.fd, []unix.Timeval{{Sec: 1000}, {Sec: 2000}})))
		var st unix.Stat_t
		t.say("state", unix.Fstat(l.fd, &st), st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Nlink)
		t.say("set attribute", unix.Fsetxattr(l.fd, "user.a", []byte("v"), 0))
		n, err := unix.Fgetxattr(l.fd, "user.a", make([]byte, 10))
		t.say("attribute", err, n)
		fd, err := unix.Openat(l.fd, names[3], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		t.say("file in it", errors.Join(err, unix.Close(fd)))
		cwd, err := os.Getwd()
		t.say("go there", errors.Join(err, unix.Fchdir(l.fd), unix.Access(names[4], unix.R_OK), unix.Chdir(cwd)))
		again, err := open(fmt.Sprintf("/proc/self/fd/%d", l.fd), 4096)
		all, err2 := again.rest()
		t.say("opened by its descriptor", errors.Join(err, err2, again.close()), difference(all, names))
		all, err = l.rest()
		t.say("entries", err, len(all))
	}
	t.say("remove", errors.Join(l.close(), os.RemoveAll(dir)))
}

// merged is a directory of the image that the container has changed, and one with mounts.
func (t try) merged() {
	l, err := open("/bin", 2000)
	all, err2 := l.rest()
	t.say("image", errors.Join(err, err2), len(all), l.wrong(all), l.close())
	made := filepath.Join("/bin", filepath.Base(t.dir))
	t.say("make and remove", errors.Join(os.Symlink("busybox", made), os.Rename("/bin/yes", "/bin/no")))
	l, err = open("/bin", 2000)
	changed, err2 := l.rest()
	t.say("changed image", errors.Join(err, err2), len(changed)-len(all), l.wrong(changed), l.close())
	t.say("remove", errors.Join(os.Remove(made), os.Rename("/bin/no", "/bin/yes")))
	l, err = open("/", 2000)
	all, err2 = l.rest()
	var mounts int
	for _, e := range all {
		var top, st unix.Stat_t
		err = errors.Join(err, unix.Lstat("/", &top), unix.Lstat("/"+e.name, &st))
		if st.Dev != top.Dev {
			mounts++
		}
	}
	t.say("top", errors.Join(err, err2, l.close()), mounts)
}
