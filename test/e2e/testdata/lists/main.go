// Command lists makes directories of many sizes, reads them in all ways there are, while they
// change too, and prints what comes of it, a line for each.
//
// usage: lists DIRECTORY...     with a large one in the first
//
//	lists -hold DIRECTORY...     keeps them open, and says how many entries they have
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/testdata/said"
)

func main() {
	if os.Args[1] == "-hold" {
		hold(os.Args[2:])
		return
	}
	for i, root := range os.Args[1:] {
		dir, err := os.MkdirTemp(root, "lists")
		t := try{filepath.Base(root), dir}
		t.say("directory", err)
		for _, n := range []int{0, 1, 24, 190, 200} {
			t.sizes(n)
		}
		t.longNames()
		t.seeks(30)
		t.seeks(300)
		t.changed(10)
		t.changed(300)
		t.removed()
		t.emptied(40)
		t.emptied(2500 / (1 + 4*i))
		t.calls()
		t.merged()
		t.threads(150)
		t.threads(300)
		t.say("remove", os.RemoveAll(dir))
	}
}

// hold reads directories, says how many entries that are, and closes none before there is a
// line to read.
func hold(dirs []string) {
	var entries int
	for _, dir := range dirs {
		l, err := open(dir, 2048)
		all, err2 := l.rest()
		if err := errors.Join(err, err2); err != nil {
			fmt.Println(dir, err)
		}
		entries += len(all)
	}
	fmt.Println(entries)
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// try is a directory to make others in, and what to call it.
type try struct{ name, dir string }

func (t try) say(what string, err error, values ...any) {
	said.Line(t.name, what, err, values...)
}

// filled makes a directory with n entries of all types.
func (t try) filled(n int) (dir string, names []string) {
	dir, err := os.MkdirTemp(t.dir, "filled")
	for i := range n {
		name := fmt.Sprintf("entry-%04d%s", i, strings.Repeat("-long", i%4))
		path := filepath.Join(dir, name)
		switch i % 8 {
		case 0:
			err = errors.Join(err, os.Mkdir(path, 0o755))
		case 1:
			err = errors.Join(err, os.Symlink("entry-0000", path))
		case 2:
			err = errors.Join(err, unix.Mkfifo(path, 0o600))
		default:
			err = errors.Join(err, os.WriteFile(path, nil, 0o600))
		}
		names = append(names, name)
	}
	if err != nil {
		t.say("fill", err)
		os.Exit(1)
	}
	return dir, names
}

// sizes reads a directory of n entries by buffers of many sizes, and twice.
func (t try) sizes(n int) {
	dir, names := t.filled(n)
	for _, size := range []int{64, 280, 2048, 32 << 10, 1 << 20} {
		l, err := open(dir, size)
		all, err2 := l.rest()
		t.say(fmt.Sprintf("%d entries, buffer %d", n, size), errors.Join(err, err2), difference(all, names))
		if size == 280 {
			t.say("types and numbers", nil, l.wrong(all))
		}
		_, err = unix.Seek(l.fd, 0, unix.SEEK_SET)
		more, err3 := l.rest()
		again, err2 := l.rest()
		t.say("again, and after the end", errors.Join(err, err2, err3, l.close()), difference(more, names), len(again))
	}
	t.say("remove", os.RemoveAll(dir))
}

// longNames are those that fill a reply with few entries.
func (t try) longNames() {
	dir, err := os.MkdirTemp(t.dir, "long")
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 252)))
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, names[i]), 0o700))
		if i%20 != 19 {
			continue
		}
		l, err2 := open(dir, 3000)
		all, err3 := l.rest()
		t.say(fmt.Sprint("long names ", i+1), errors.Join(err, err2, err3), difference(all, names), l.wrong(all))
		err = l.close()
	}
	err = os.Mkdir(filepath.Join(dir, strings.Repeat("y", 256)), 0o700)
	t.say("too long", err)
	t.say("remove", os.RemoveAll(dir))
}

// seeks goes to each position that was told, forth and back.
func (t try) seeks(n int) {
	dir, _ := t.filled(n)
	l, err := open(dir, 400)
	all, err2 := l.rest()
	t.say("open", errors.Join(err, err2), len(all))
	var bad int
	check := func(l *list, i int) {
		if _, err := unix.Seek(l.fd, all[i].next, unix.SEEK_SET); err != nil {
			bad++
		}
		some, err := l.some()
		if want := all[i+1:]; err != nil || (len(some) == 0) != (len(want) == 0) || len(want) > 0 && some[0] != want[0] {
			bad++
		}
	}
	for i := len(all) - 1; i >= 0; i -= 1 + n/100 {
		check(l, i)
		check(l, (i*7)%len(all))
	}
	t.say("positions", l.close(), bad)
	for i := 0; i < len(all); i += 1 + n/7 {
		l, err := open(dir, 400) // the positions are of another one, but nothing has changed
		check(l, i)
		t.say("in one that is open anew", errors.Join(err, l.close()), bad)
	}
	t.say("remove", os.RemoveAll(dir))
}

// threads read one directory at once, each for itself and all from one descriptor.
func (t try) threads(n int) {
	dir, names := t.filled(n)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad int
	var union []entry
	one, err := open(dir, 2048)
	for i := range 16 {
		wg.Go(func() {
			l, err := open(dir, 500<<(i/4))
			all, err2 := l.rest()
			shared := &list{dir: dir, fd: one.fd, buf: make([]byte, 2048)}
			part, err3 := shared.rest()
			mu.Lock()
			defer mu.Unlock()
			union = append(union, part...)
			if errors.Join(err, err2, err3, l.close()) != nil || difference(all, names) != "" {
				bad++
			}
		})
	}
	wg.Wait()
	t.say("threads", errors.Join(err, one.close()), bad, difference(union, names))
	t.say("remove", os.RemoveAll(dir))
}

// difference says how often names are missing and others are there, which are to be there
// once; of the directory itself and the one above there must be one each.
func difference(all []entry, names []string) string {
	count := map[string]int{".": -1, "..": -1}
	for _, name := range names {
		count[name]--
	}
	for _, e := range all {
		count[e.name]++
	}
	var missing, more int
	for _, n := range count {
		missing += max(-n, 0)
		more += max(n, 0)
	}
	if missing+more == 0 {
		return ""
	}
	return fmt.Sprintf("%d missing, %d too many", missing, more)
}

// without are names without some.
func without(names []string, gone func(i int) bool) (left []string) {
	for i, name := range names {
		if !gone(i) {
			left = append(left, name)
		}
	}
	return slices.Clip(left)
}
