package task

import (
	"math"
	"testing"
	"time"

	cgroup2stats "github.com/containerd/cgroups/v3/cgroup2/stats"
	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

func TestStatus(t *testing.T) {
	for state, want := range map[sandbox.ContainerState]tasktypes.Status{
		sandbox.Creating: tasktypes.Status_CREATED,
		sandbox.Created:  tasktypes.Status_CREATED,
		sandbox.Starting: tasktypes.Status_CREATED,
		sandbox.Running:  tasktypes.Status_RUNNING,
		sandbox.Pausing:  tasktypes.Status_PAUSING,
		sandbox.Paused:   tasktypes.Status_PAUSED,
		sandbox.Resuming: tasktypes.Status_RUNNING,
		sandbox.Exited:   tasktypes.Status_STOPPED,
		sandbox.Deleted:  tasktypes.Status_STOPPED,
		99:               tasktypes.Status_UNKNOWN,
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

func TestConvertEvent(t *testing.T) {
	at := time.Unix(5, 6).UTC()
	for _, tt := range []struct {
		event sandbox.Event
		want  proto.Message
	}{
		{sandbox.TaskStarted{ContainerID: "c", PID: 1}, &eventsapi.TaskStart{ContainerID: "c", Pid: 1}},
		{sandbox.ExecAdded{ContainerID: "c", ExecID: "e"}, &eventsapi.TaskExecAdded{ContainerID: "c", ExecID: "e"}},
		{sandbox.ExecStarted{ContainerID: "c", ExecID: "e", PID: 1}, &eventsapi.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 1}},
		{
			sandbox.TaskExited{ContainerID: "c", PID: 1, Status: 2, At: at},
			&eventsapi.TaskExit{ContainerID: "c", ID: "c", Pid: 1, ExitStatus: 2, ExitedAt: timestamppb.New(at)},
		},
		{
			sandbox.TaskExited{ContainerID: "c", ExecID: "e", PID: 1, Status: 2, At: at},
			&eventsapi.TaskExit{ContainerID: "c", ID: "e", Pid: 1, ExitStatus: 2, ExitedAt: timestamppb.New(at)},
		},
		{
			sandbox.TaskDeleted{ContainerID: "c", PID: 1, Status: 2, At: at},
			&eventsapi.TaskDelete{ContainerID: "c", ID: "c", Pid: 1, ExitStatus: 2, ExitedAt: timestamppb.New(at)},
		},
		{sandbox.TaskPaused{ContainerID: "c"}, &eventsapi.TaskPaused{ContainerID: "c"}},
		{sandbox.TaskResumed{ContainerID: "c"}, &eventsapi.TaskResumed{ContainerID: "c"}},
		{sandbox.TaskOOM{ContainerID: "c"}, &eventsapi.TaskOOM{ContainerID: "c"}},
	} {
		if got, ok := convertEvent(tt.event).(proto.Message); !ok || !proto.Equal(got, tt.want) {
			t.Errorf("%T: got %v, want %v", tt.event, got, tt.want)
		}
	}
	if got := timestamp(time.Time{}); got != nil {
		t.Errorf("a process that has not ended exited at %v", got)
	}
	if diff := cmp.Diff(at, timestamp(at).AsTime()); diff != "" {
		t.Error(diff)
	}
}
