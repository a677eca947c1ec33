package cgroups

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// ioStats parses io.stat: "major:minor key=value ..." per line.
func ioStats(b []byte) []hyperstart.IOStats {
	var all []hyperstart.IOStats
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		var dev hyperstart.IOStats
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &dev.Major, &dev.Minor); err != nil {
			continue
		}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				dev.RBytes = n
			case "wbytes":
				dev.WBytes = n
			case "rios":
				dev.RIOs = n
			case "wios":
				dev.WIOs = n
			}
		}
		all = append(all, dev)
	}
	return all
}

// Stats reads the files of the group. A file that is missing, because its
// controller is, leaves its numbers 0.
func (g Group) Stats() (*hyperstart.Stats, error) {
	if _, err := os.Stat(string(g)); err != nil {
		return nil, err
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(string(g), name))
		if err != nil {
			return nil
		}
		return b
	}
	return &hyperstart.Stats{
		CPU:           kernfs.FlatKeyed(read("cpu.stat")),
		Memory:        kernfs.FlatKeyed(read("memory.stat")),
		MemoryCurrent: kernfs.Number(read("memory.current")),
		MemoryMax:     kernfs.Number(read("memory.max")),
		MemoryPeak:    kernfs.Number(read("memory.peak")),
		SwapCurrent:   kernfs.Number(read("memory.swap.current")),
		SwapMax:       kernfs.Number(read("memory.swap.max")),
		MemoryEvents:  kernfs.FlatKeyed(read("memory.events")),
		PIDsCurrent:   kernfs.Number(read("pids.current")),
		PIDsMax:       kernfs.Number(read("pids.max")),
		IO:            ioStats(read("io.stat")),
	}, nil
}
