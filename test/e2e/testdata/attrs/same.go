package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// same changes attributes to what they are, which the time of the last change tells, and
// then others.
func (t try) same() {
	second := t.file + "2"
	for _, name := range []string{t.file, second, t.dir} {
		what := "directory"
		if name != t.dir {
			what = filepath.Base(name)
			t.say("make "+what, os.WriteFile(name, nil, 0o644))
		}
		t.changes("same mode of "+what, name, func() error { return os.Chmod(name, modeOf(name)) })
		t.changes("same owner of "+what, name, func() error { return os.Chown(name, 0, 0) })
	}
	set := time.Unix(1_000_000_000, 5000)
	t.say("two files", errors.Join(os.Chmod(t.file, 0o644), os.Chown(second, 0, 0), os.Chmod(second, 0o644), os.Chtimes(t.file, set, set), os.Chown(t.file, 0, 0)))
	for _, name := range []string{t.file, second} {
		info, err := os.Stat(name)
		t.say("mode and time", err, fmt.Sprintf("%o", info.Mode()), info.ModTime().Equal(set))
	}
	t.say("same mode, attribute", errors.Join(os.Chmod(t.file, 0o644), unix.Setxattr(t.file, "user.a", []byte("v"), 0), os.Chmod(t.file, 0o644), unix.Removexattr(t.file, "user.a")))
	t.mode("mode", nil)
	t.mode("same owner, set-user-id", errors.Join(os.Chown(t.file, 0, 0), unix.Chmod(t.file, 0o4755)))
	t.mode("same owner again", os.Chown(t.file, 0, 0))
	t.mode("same mode, another mode", errors.Join(os.Chmod(t.file, 0o755), os.Chmod(t.file, 0o600)))
	t.mode("same mode, cut", errors.Join(os.Chmod(t.file, 0o600), os.Truncate(t.file, 100)))
	t.say("same mode, removed", errors.Join(os.Chmod(second, 0o644), os.Remove(second), os.WriteFile(second, nil, 0o600)))
	info, err := os.Stat(second)
	t.say("made again", err, fmt.Sprintf("%o", info.Mode()))
	_ = os.Remove(second)
}

func modeOf(path string) os.FileMode {
	info, _ := os.Stat(path)
	return info.Mode()
}

// changes does something until the time of the file's last change is another.
func (t try) changes(what, path string, do func() error) {
	var before, after unix.Stat_t
	err := unix.Stat(path, &before)
	for after = before; err == nil && after.Ctim == before.Ctim; {
		err = errors.Join(do(), unix.Stat(path, &after))
	}
	t.say(what, err, fmt.Sprintf("%o %d", after.Mode, after.Uid))
}

// wait makes a file, says that it has no such attribute, and waits until another gives
// it one.
func wait(file, name string) {
	t := try{name: filepath.Base(file), file: file}
	t.fresh(0o755)
	_, err := get(file, name)
	t.say("get at first", err)
	for err != nil {
		time.Sleep(10 * time.Millisecond)
		_, err = get(file, name)
	}
	t.say("get", err)
	t.say("write", write(file))
	_, err = get(file, name)
	t.say("get after that", err)
}
