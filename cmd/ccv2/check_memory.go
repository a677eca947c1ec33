package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// memory is a process's share of the host's memory in bytes (PSS: pages that
// several processes map are divided among them).
type memory struct {
	total int64
	guest int64 // of which the guest's RAM
}

func (m memory) plus(o memory) memory { return memory{m.total + o.total, m.guest + o.guest} }

// memoryOf adds up the processes with the given pids and all that descend from
// them. ramBytes is the size of the guest's RAM, by which its mapping is known.
func memoryOf(ramBytes int64, pids ...int) (memory, error) {
	all, err := withDescendants(pids)
	if err != nil {
		return memory{}, err
	}
	var sum memory
	for _, pid := range all {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		if err != nil {
			return memory{}, fmt.Errorf("measure memory: %w", err)
		}
		sum = sum.plus(parseSmaps(string(b), ramBytes))
	}
	return sum, nil
}

// parseSmaps adds up a file like /proc/PID/smaps. The guest's RAM is the memfd
// of QEMU's memory backend, or the one mapping of just its size.
func parseSmaps(text string, ramBytes int64) memory {
	var sum memory
	isRAM := false
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if from, to, found := strings.Cut(fields[0], "-"); found && !strings.HasSuffix(fields[0], ":") {
			isRAM = strings.Contains(line, "/memfd:memory-backend") || span(from, to) == ramBytes
			continue
		}
		if fields[0] != "Pss:" || len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		sum.total += kib << 10
		if isRAM {
			sum.guest += kib << 10
		}
	}
	return sum
}

// span is the size of a mapping, 0 when the addresses make no sense.
func span(from, to string) int64 {
	a, errA := strconv.ParseUint(from, 16, 64)
	b, errB := strconv.ParseUint(to, 16, 64)
	if errA != nil || errB != nil || b < a {
		return 0
	}
	return int64(b - a)
}

// withDescendants returns the pids with their children, theirs, and so on.
func withDescendants(pids []int) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, parent, ok := parseStat(string(b))
		if ok {
			children[parent] = append(children[parent], pid)
		}
	}
	all := slices.Clone(pids)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// parseStat reads pid and parent from /proc/PID/stat. The name in parentheses
// may contain anything, so what follows it counts from its end.
func parseStat(stat string) (pid, parent int, ok bool) {
	end := strings.LastIndexByte(stat, ')')
	first, _, _ := strings.Cut(stat, " ")
	if end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err == nil
}
