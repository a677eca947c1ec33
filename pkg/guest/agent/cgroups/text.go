package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// textFile is a program or a library that a process has mapped.
type textFile struct {
	id    string // device and inode
	text  bool
	parts []mapping // the text first
}

// mapping is a part of a file that a process has mapped.
type mapping struct {
	name   string // in map_files
	offset int64
	length int
	text   bool // it can be executed
}

// textHolder is a process whose text is locked.
type textHolder struct {
	pidfd int
	files []string
	parts [][]byte // mapped and locked
}

// maxHolders bounds the processes whose text is locked. Others usually run the same
// programs.
const maxHolders = 256

// lockText locks the text of a group's processes. The pages that are in memory count
// for the container further on; those that are read now do not, so they may take half
// of what is free in the guest.
func (k *textKeeper) lockText(g Group) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	room, err := roomForText()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if room, err = k.lockTextOf(pid, room); err != nil {
			errs = append(errs, fmt.Errorf("process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// roomForText is half of what the guest has free and in its page cache.
func roomForText() (int, error) {
	info, err := os.ReadFile("/proc/meminfo")
	room := kernfs.KiB(info, "MemFree:") + kernfs.KiB(info, "Active(file):") + kernfs.KiB(info, "Inactive(file):")
	return int(room / 2), err
}

// lockTextOf locks that of one process, and returns the room that is left. A process
// that has ended meanwhile has none.
func (k *textKeeper) lockTextOf(pid, room int) (int, error) {
	files, err := textOf(pid)
	if err == nil {
		room, err = k.lockFiles(pid, files, room)
	}
	return room, ignore(err, unix.ENOENT, unix.ESRCH)
}

// lockFiles locks what is not locked yet until the process ends: the first time, and when
// it has executed another program or loaded a library since.
func (k *textKeeper) lockFiles(pid int, files []textFile, room int) (int, error) {
	h, err := k.holder(pid)
	if h == nil {
		return room, err
	}
	h.lockAgain()
	for _, file := range files {
		if room <= 0 {
			break
		}
		if k.locked(file.id) {
			continue
		}
		used, err := h.lock(pid, file, room)
		if room -= used; err != nil {
			return room, err
		}
	}
	return room, nil
}

// holder is a process whose end is waited for, nil when there are too many.
func (k *textKeeper) holder(pid int) (*textHolder, error) {
	if h := k.holders[pid]; h != nil || len(k.holders) >= maxHolders {
		return h, nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	h := &textHolder{pidfd: pidfd}
	k.holders[pid] = h
	if err := k.await(pidfd, unix.EPOLLIN|unix.EPOLLONESHOT, k.someEnded); err != nil {
		k.drop(pid)
		return nil, err
	}
	return h, nil
}

func (k *textKeeper) locked(file string) bool {
	for _, h := range k.holders {
		if slices.Contains(h.files, file) {
			return true
		}
	}
	return false
}

// dropEnded unlocks what was locked for processes that have ended.
func (k *textKeeper) dropEnded() {
	for pid, h := range k.holders {
		fds := []unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 0); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			k.drop(pid)
		}
	}
}

// drop unlocks what was locked for a process.
func (k *textKeeper) drop(pid int) {
	h := k.holders[pid]
	delete(k.holders, pid)
	for _, part := range h.parts {
		_ = unix.Munmap(part) // what Mmap has returned
	}
	k.closeFD(h.pidfd)
}

// ignore drops an error that says that a process has ended.
func ignore(err error, targets ...error) error {
	for _, target := range targets {
		if errors.Is(err, target) {
			return nil
		}
	}
	return err
}

// lock maps the parts of a file and locks them, and returns how much that is. The file is
// opened once: whenever it is, the kernel may read it again.
func (h *textHolder) lock(pid int, file textFile, room int) (used int, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%s", pid, file.parts[0].name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h.files = append(h.files, file.id)
	for _, part := range file.parts {
		if room <= used {
			break
		}
		b, err := unix.Mmap(int(f.Fd()), part.offset, min(part.length, room-used), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return used, err
		}
		used += len(b)
		h.parts = append(h.parts, b)
	}
	h.lockAgain()
	return used, nil
}

// lockAgain locks the pages that were taken away since, as all of a file are when a
// process opens it. That the end of a part is past the end of its file
// is no error: there is nothing to lock.
func (h *textHolder) lockAgain() {
	for _, part := range h.parts {
		_ = unix.Madvise(part, unix.MADV_WILLNEED) // reads ahead of what Mlock waits for
		_ = unix.Mlock(part)
	}
}

// textOf lists the programs and libraries of a process, with all that it has mapped of
// them: constants belong to it. Only those that the host serves:
// others are in memory anyhow, or some process of the container may serve them, and let
// the agent wait.
func textOf(pid int) ([]textFile, error) {
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	return textIn(maps, served(mounts)), nil
}

// served finds the devices of the file systems that the host serves.
func served(mountinfo []byte) map[string]bool {
	devices := map[string]bool{}
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := bytes.Cut(line, []byte(" - "))
		fields, kind := bytes.Fields(before), bytes.Fields(after)
		if len(fields) < 3 || len(kind) == 0 {
			continue
		}
		if t := string(kind[0]); t == "virtiofs" || t == "9p" {
			devices[string(fields[2])] = true
		}
	}
	return devices
}

// textIn is textOf with the text of maps.
func textIn(maps []byte, served map[string]bool) []textFile {
	var all []textFile
	for line := range strings.Lines(string(maps)) {
		m, device, id, ok := parseMapping(line)
		if !ok || !served[device] {
			continue
		}
		i := slices.IndexFunc(all, func(f textFile) bool { return f.id == id })
		if i < 0 {
			i = len(all)
			all = append(all, textFile{id: id})
		}
		if all[i].parts = append(all[i].parts, m); m.text {
			all[i].text = true
			slices.SortStableFunc(all[i].parts, textFirst)
		}
	}
	return slices.DeleteFunc(all, func(f textFile) bool { return !f.text })
}

func textFirst(a, b mapping) int {
	switch {
	case a.text == b.text:
		return 0
	case a.text:
		return -1
	}
	return 1
}

// parseMapping parses "5600-5700 r-xp 00001000 08:01 1234 /path".
func parseMapping(line string) (m mapping, device, file string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || len(fields[1]) < 3 {
		return m, "", "", false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	begin, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	offset, err3 := strconv.ParseInt(fields[2], 16, 64)
	major, minor, _ := strings.Cut(fields[3], ":")
	maj, err4 := strconv.ParseUint(major, 16, 32)
	mnr, err5 := strconv.ParseUint(minor, 16, 32)
	if errors.Join(err1, err2, err3, err4, err5) != nil || fields[4] == "0" || end <= begin {
		return m, "", "", false
	}
	device = fmt.Sprintf("%d:%d", maj, mnr)
	return mapping{
		name: fmt.Sprintf("%x-%x", begin, end), offset: offset, length: int(end - begin), text: fields[1][2] == 'x',
	}, device, device + " " + fields[4], true
}
