package task

import (
	"math"
	"testing"
	"time"

	cgroup2stats "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

func TestStatus(t *testing.T) {
	for state, want := range map[sandbox.ContainerState]tasktypes.Status{
		sandbox.ContainerCreating: tasktypes.Status_CREATED,
		sandbox.ContainerCreated:  tasktypes.Status_CREATED,
		sandbox.ContainerStarting: tasktypes.Status_CREATED,
		sandbox.ContainerRunning:  tasktypes.Status_RUNNING,
		sandbox.ContainerPausing:  tasktypes.Status_PAUSING,
		sandbox.ContainerPaused:   tasktypes.Status_PAUSED,
		sandbox.ContainerResuming: tasktypes.Status_RUNNING,
		sandbox.ContainerExited:   tasktypes.Status_STOPPED,
		sandbox.ContainerDeleted:  tasktypes.Status_STOPPED,
		99:                        tasktypes.Status_UNKNOWN,
	} {
		if got := containerStatus(state); got != want {
			t.Errorf("container state %d: %s, want %s", state, got, want)
		}
	}
	for state, want := range map[sandbox.ProcessState]tasktypes.Status{
		sandbox.ProcessCreated:  tasktypes.Status_CREATED,
		sandbox.ProcessStarting: tasktypes.Status_CREATED,
		sandbox.ProcessRunning:  tasktypes.Status_RUNNING,
		sandbox.ProcessExited:   tasktypes.Status_STOPPED,
		sandbox.ProcessDeleted:  tasktypes.Status_STOPPED,
		99:                      tasktypes.Status_UNKNOWN,
	} {
		if got := processStatus(state); got != want {
			t.Errorf("process state %d: %s, want %s", state, got, want)
		}
	}
}

func TestConvertProcesses(t *testing.T) {
	resp, err := convertProcesses([]sandbox.ProcessInfo{{PID: 12}, {PID: 34, ExecID: "e"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Processes) != 2 || resp.Processes[0].Pid != 12 || resp.Processes[0].Info != nil || resp.Processes[1].Pid != 34 {
		t.Fatalf("got %v", resp)
	}
	details, err := typeurl.UnmarshalAny(resp.Processes[1].Info)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := details.(*options.ProcessDetails); !ok || got.ExecID != "e" {
		t.Errorf("details %v", details)
	}
}

// TestConvertStats: what ctr and CRI show. No limit is the largest number, as
// containerd's own reader has it.
func TestConvertStats(t *testing.T) {
	resp, err := convertStats(&hyperstart.Stats{
		CPU:           map[string]uint64{"usage_usec": 1, "user_usec": 2, "system_usec": 3, "nr_throttled": 4},
		Memory:        map[string]uint64{"anon": 5, "inactive_file": 6, "workingset_refault_anon": 7, "workingset_refault_file": 8},
		MemoryCurrent: 9, SwapMax: 10,
		MemoryEvents: map[string]uint64{"oom_kill": 11},
		PIDsCurrent:  12, PIDsMax: 13,
		IO: []hyperstart.IOStats{{Major: 8, Minor: 1, RBytes: 14, WBytes: 15, RIOs: 16, WIOs: 17}},
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := typeurl.UnmarshalAny(resp.Stats)
	if err != nil {
		t.Fatal(err)
	}
	want := &cgroup2stats.Metrics{
		CPU:          &cgroup2stats.CPUStat{UsageUsec: 1, UserUsec: 2, SystemUsec: 3, NrThrottled: 4},
		Memory:       &cgroup2stats.MemoryStat{Anon: 5, InactiveFile: 6, WorkingsetRefault: 15, Usage: 9, UsageLimit: math.MaxUint64, SwapLimit: 10},
		MemoryEvents: &cgroup2stats.MemoryEvents{OomKill: 11},
		Pids:         &cgroup2stats.PidsStat{Current: 12, Limit: 13},
		Io:           &cgroup2stats.IOStat{Usage: []*cgroup2stats.IOEntry{{Major: 8, Minor: 1, Rbytes: 14, Wbytes: 15, Rios: 16, Wios: 17}}},
	}
	if got, ok := v.(*cgroup2stats.Metrics); !ok || !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", v, want)
	}
}

func TestTimestamp(t *testing.T) {
	at := time.Unix(5, 6).UTC()
	if got := timestamp(time.Time{}); got != nil {
		t.Errorf("a process that has not ended exited at %v", got)
	}
	if diff := cmp.Diff(at, timestamp(at).AsTime()); diff != "" {
		t.Error(diff)
	}
}
