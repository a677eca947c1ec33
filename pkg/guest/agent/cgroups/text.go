package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// textFile is a program or a library that a process has mapped.
type textFile struct {
	id    string // mount namespace, device and inode
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
	container string // "" when the guest was short of memory
	pidfd     int
	files     []string
	parts     [][]byte // mapped and locked
}

// What a container can have the agent do: it may run as many processes as it likes, with
// as many mappings, of files with names as long as it likes.
const (
	// maxHolders bounds the processes whose text is locked, maxLooks those that are
	// looked at in a turn. Others usually run the same programs.
	maxHolders = 256
	maxLooks   = 1024
	// maxList is how much is read of a process's mappings, and of its mounts.
	maxList = 1 << 20
	// maxParts bounds the agent's mappings, of which the kernel allows 65530: without
	// one for itself the agent ends, and the guest with it.
	maxParts = 8192
	// maxBeyond is what may be locked for a container whose limit is less.
	maxBeyond = 64 << 20
)

// lockText locks the text of a group's processes. The pages that are in memory count
// for the container further on; those that are read now do not, so they have a limit. looks
// is how many processes may be looked at yet.
func (k *textKeeper) lockText(g *textGroup, group Group, looks *int) error {
	pids, err := group.PIDs()
	if err != nil {
		return err
	}
	room, err := k.roomFor(g)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if *looks == 0 {
			break
		}
		if k.holders[pid] == nil && len(k.holders) >= maxHolders {
			continue
		}
		*looks--
		if room, err = k.lockTextOf(g.id, pid, room); err != nil {
			errs = append(errs, fmt.Errorf("process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// roomFor is how much may be locked yet: in all half of what the guest would have free,
// and in its page cache, with nothing locked; and for a container as much as its limit,
// as its programs would have to fit there.
func (k *textKeeper) roomFor(g *textGroup) (int, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	all, own := k.held(g.id)
	free := kernfs.KiB(info, "MemFree:") + kernfs.KiB(info, "Active(file):") + kernfs.KiB(info, "Inactive(file):")
	room := (int(free)+all)/2 - all
	if limit, err := os.ReadFile(filepath.Join(string(g.group), "memory.max")); err == nil && kernfs.Number(limit) != 0 {
		room = min(room, int(min(max(kernfs.Number(limit), maxBeyond), math.MaxInt))-own)
	}
	return room, nil
}

// held is how much is locked in all, and for a container.
func (k *textKeeper) held(container string) (all, own int) {
	for _, h := range k.holders {
		for _, part := range h.parts {
			all += len(part)
			if h.container == container {
				own += len(part)
			}
		}
	}
	return all, own
}

// lockTextOf locks that of one process, and returns the room that is left. A process
// that has ended meanwhile has none.
func (k *textKeeper) lockTextOf(container string, pid, room int) (int, error) {
	files, host, err := textOf(pid)
	if err == nil {
		room, err = k.lockFiles(container, pid, files, host, room)
	}
	// EINVAL is what pidfd_open says of a process that is just being released.
	return room, ignore(err, unix.ENOENT, unix.ESRCH, unix.EINVAL)
}

// lockFiles locks what is not locked yet until the process ends: the first time, and when
// it has executed another program or loaded a library since.
func (k *textKeeper) lockFiles(container string, pid int, files []textFile, host served, room int) (int, error) {
	h, err := k.holder(container, pid)
	if h == nil {
		return room, err
	}
	defer func() {
		if len(h.files) == 0 {
			k.drop(pid) // there is room for who has something
		}
	}()
	h.lockAgain()
	for _, file := range files {
		parts := maxParts - k.parts()
		if room <= 0 || parts <= 0 {
			break
		}
		if k.locked(file.id) {
			continue
		}
		file.parts = file.parts[:min(len(file.parts), parts)]
		used, err := h.lock(pid, file, host, room)
		if room -= used; err != nil {
			return room, err
		}
	}
	return room, nil
}

// parts is how many mappings there are.
func (k *textKeeper) parts() (n int) {
	for _, h := range k.holders {
		n += len(h.parts)
	}
	return n
}

// holder is a process whose end is waited for, nil when there are too many.
func (k *textKeeper) holder(container string, pid int) (*textHolder, error) {
	if h := k.holders[pid]; h != nil || len(k.holders) >= maxHolders {
		return h, nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	h := &textHolder{container: container, pidfd: pidfd}
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
func (h *textHolder) lock(pid int, file textFile, host served, room int) (used int, err error) {
	f, err := openText(fmt.Sprintf("/proc/%d/map_files/%s", pid, file.parts[0].name), host)
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

// openText opens what a process has mapped. It may have mapped something else since its
// list was read: a device, or a file whose server is a process that lets the agent wait.
// So nothing is opened, and no server asked, before it is known to be a file of the host.
func openText(path string, host served) (*os.File, error) {
	pin, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pin)
	var st unix.Statx_t
	if err := unix.Statx(pin, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !host.mounts[st.Mnt_id] {
		return nil, fmt.Errorf("%s is no longer a file of the host: %w", path, unix.ENOENT)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", pin))
}

// textOf lists the programs and libraries of a process, with all that it has mapped of
// them: constants belong to it. Only those that the host serves:
// others are in memory anyhow, or some process of the container may serve them, and let
// the agent wait.
func textOf(pid int) ([]textFile, served, error) {
	mounts, err := readList(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, served{}, err
	}
	maps, err := readList(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, served{}, err
	}
	host := servedBy(mounts)
	if host.namespace, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil {
		return nil, served{}, err
	}
	return textIn(maps, host), host, nil
}

// readList reads the lines of a file of the kernel, the first ones of a long one.
func readList(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxList))
	return b[:bytes.LastIndexByte(b, '\n')+1], err
}

// served are mounts that the host serves, and the devices of their file systems. All root
// file systems of a pod have one device, on which files of several have one number: those
// of containers with the same image do.
type served struct {
	namespace string // whose mounts
	mounts    map[uint64]bool
	devices   map[string]bool
}

// servedBy finds them.
func servedBy(mountinfo []byte) served {
	host := served{mounts: map[uint64]bool{}, devices: map[string]bool{}}
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := bytes.Cut(line, []byte(" - "))
		fields, kind := bytes.Fields(before), bytes.Fields(after)
		if len(fields) < 3 || len(kind) == 0 {
			continue
		}
		id, err := strconv.ParseUint(string(fields[0]), 10, 64)
		if t := string(kind[0]); err == nil && (t == "virtiofs" || t == "9p") {
			host.mounts[id] = true
			host.devices[string(fields[2])] = true
		}
	}
	return host
}

// textIn is textOf with the text of maps.
func textIn(maps []byte, host served) []textFile {
	var all []textFile
	index := map[string]int{}
	for line := range strings.Lines(string(maps)) {
		m, device, id, ok := parseMapping(line)
		if !ok || !host.devices[device] {
			continue
		}
		id = host.namespace + " " + id
		i, known := index[id]
		if !known {
			i = len(all)
			index[id] = i
			all = append(all, textFile{id: id})
		}
		all[i].parts = append(all[i].parts, m)
		all[i].text = all[i].text || m.text
	}
	all = slices.DeleteFunc(all, func(f textFile) bool { return !f.text })
	for _, f := range all {
		slices.SortStableFunc(f.parts, textFirst)
	}
	return all
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
