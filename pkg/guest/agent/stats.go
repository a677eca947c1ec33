package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (s *containers) stats(_ context.Context, req hyperstart.ContainerRef) (*hyperstart.Stats, error) {
	c, err := s.find(req.Container)
	if err != nil {
		return nil, err
	}
	stats, err := c.group.Stats()
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassNotFound, "read statistics of container %s: %w", c.id, err)
	}
	return stats, nil
}

func (s *containers) list(_ context.Context, req hyperstart.ContainerRef) (*hyperstart.ProcessList, error) {
	c, err := s.find(req.Container)
	if err != nil {
		return nil, err
	}
	pids, err := c.group.PIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", c.id, err)
	}
	ids := c.processIDs()
	list := &hyperstart.ProcessList{Processes: make([]hyperstart.ProcessInfo, 0, len(pids))}
	for _, pid := range pids {
		p := hyperstart.ProcessInfo{PID: pid, Process: ids[pid]}
		_ = describe(&p) // it may have ended, and was there a moment ago
		list.Processes = append(list.Processes, p)
	}
	return list, nil
}

// argsLimit bounds what is told of the arguments of a process.
const argsLimit = 4 << 10

// describe reads what /proc says of a process.
func describe(p *hyperstart.ProcessInfo) error {
	dir := filepath.Join("/proc", strconv.Itoa(p.PID))
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return err
	}
	p.Name = strings.TrimSuffix(string(name), "\n")
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return err
	}
	if args = args[:min(len(args), argsLimit)]; len(args) > 0 {
		p.Args = strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		var effective uint32
		if n, _ := fmt.Sscanf(line, "Uid: %d %d", new(uint32), &effective); n == 2 {
			p.UID = effective
		}
		if n, _ := fmt.Sscanf(line, "Gid: %d %d", new(uint32), &effective); n == 2 {
			p.GID = effective
		}
	}
	return nil
}
