package task

import (
	"fmt"
	"math"
	"time"

	cgroup2stats "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

func containerStatus(s sandbox.ContainerState) tasktypes.Status {
	switch s {
	case sandbox.ContainerCreating, sandbox.ContainerCreated, sandbox.ContainerStarting:
		return tasktypes.Status_CREATED
	case sandbox.ContainerRunning, sandbox.ContainerResuming:
		return tasktypes.Status_RUNNING
	case sandbox.ContainerPausing:
		return tasktypes.Status_PAUSING
	case sandbox.ContainerPaused:
		return tasktypes.Status_PAUSED
	case sandbox.ContainerExited, sandbox.ContainerDeleted:
		return tasktypes.Status_STOPPED
	}
	return tasktypes.Status_UNKNOWN
}

func processStatus(s sandbox.ProcessState) tasktypes.Status {
	switch s {
	case sandbox.ProcessCreated, sandbox.ProcessStarting:
		return tasktypes.Status_CREATED
	case sandbox.ProcessRunning:
		return tasktypes.Status_RUNNING
	case sandbox.ProcessExited, sandbox.ProcessDeleted:
		return tasktypes.Status_STOPPED
	}
	return tasktypes.Status_UNKNOWN
}

func convertProcesses(list []sandbox.ProcessInfo) (*taskapi.PidsResponse, error) {
	resp := &taskapi.PidsResponse{}
	for _, p := range list {
		info := &tasktypes.ProcessInfo{Pid: uint32(p.PID)}
		if p.ExecID != "" {
			details, err := typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: p.ExecID})
			if err != nil {
				return nil, fmt.Errorf("encode process details: %w", err)
			}
			info.Info = details
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

// convertStats makes the message that containerd's CRI and ctr expect from a
// host with cgroup v2.
func convertStats(s *hyperstart.Stats) (*taskapi.StatsResponse, error) {
	metrics := &cgroup2stats.Metrics{
		Pids: &cgroup2stats.PidsStat{Current: s.PIDsCurrent, Limit: s.PIDsMax},
		CPU: &cgroup2stats.CPUStat{
			UsageUsec:     s.CPU["usage_usec"],
			UserUsec:      s.CPU["user_usec"],
			SystemUsec:    s.CPU["system_usec"],
			NrPeriods:     s.CPU["nr_periods"],
			NrThrottled:   s.CPU["nr_throttled"],
			ThrottledUsec: s.CPU["throttled_usec"],
		},
		Memory: convertMemory(s),
		MemoryEvents: &cgroup2stats.MemoryEvents{
			Low: s.MemoryEvents["low"], High: s.MemoryEvents["high"], Max: s.MemoryEvents["max"],
			Oom: s.MemoryEvents["oom"], OomKill: s.MemoryEvents["oom_kill"],
		},
		Io: &cgroup2stats.IOStat{},
	}
	for _, e := range s.IO {
		metrics.Io.Usage = append(metrics.Io.Usage, &cgroup2stats.IOEntry{
			Major: e.Major, Minor: e.Minor, Rbytes: e.RBytes, Wbytes: e.WBytes, Rios: e.RIOs, Wios: e.WIOs,
		})
	}
	data, err := typeurl.MarshalAnyToProto(metrics)
	if err != nil {
		return nil, fmt.Errorf("encode statistics: %w", err)
	}
	return &taskapi.StatsResponse{Stats: data}, nil
}

func convertMemory(s *hyperstart.Stats) *cgroup2stats.MemoryStat {
	m := s.Memory
	return &cgroup2stats.MemoryStat{
		Anon: m["anon"], File: m["file"], KernelStack: m["kernel_stack"], Slab: m["slab"],
		Sock: m["sock"], Shmem: m["shmem"], FileMapped: m["file_mapped"], FileDirty: m["file_dirty"],
		FileWriteback: m["file_writeback"], AnonThp: m["anon_thp"],
		InactiveAnon: m["inactive_anon"], ActiveAnon: m["active_anon"],
		InactiveFile: m["inactive_file"], ActiveFile: m["active_file"], Unevictable: m["unevictable"],
		SlabReclaimable: m["slab_reclaimable"], SlabUnreclaimable: m["slab_unreclaimable"],
		Pgfault: m["pgfault"], Pgmajfault: m["pgmajfault"],
		WorkingsetRefault:     m["workingset_refault_file"] + m["workingset_refault_anon"],
		WorkingsetActivate:    m["workingset_activate_file"] + m["workingset_activate_anon"],
		WorkingsetNodereclaim: m["workingset_nodereclaim"],
		Pgrefill:              m["pgrefill"], Pgscan: m["pgscan"], Pgsteal: m["pgsteal"],
		Pgactivate: m["pgactivate"], Pgdeactivate: m["pgdeactivate"],
		Pglazyfree: m["pglazyfree"], Pglazyfreed: m["pglazyfreed"],
		ThpFaultAlloc: m["thp_fault_alloc"], ThpCollapseAlloc: m["thp_collapse_alloc"],
		Usage: s.MemoryCurrent, UsageLimit: unlimited(s.MemoryMax),
		SwapUsage: s.SwapCurrent, SwapLimit: unlimited(s.SwapMax),
	}
}

// unlimited says "no limit" as containerd's own reader of cgroups does.
func unlimited(limit uint64) uint64 {
	if limit == 0 {
		return math.MaxUint64
	}
	return limit
}

// timestamp is nil for a process that has not ended.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
