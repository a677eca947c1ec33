package agent

import (
	"context"
	"fmt"

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
		list.Processes = append(list.Processes, hyperstart.ProcessInfo{PID: pid, Process: ids[pid]})
	}
	return list, nil
}
