package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// publisher is containerd's end.
type publisher struct {
	mu     sync.Mutex // guards the fields below
	got    []string
	closed bool
	// publish, when set, is what Publish does first.
	publish func(ctx context.Context) error
}

// Publish implements [shim.Publisher].
func (p *publisher) Publish(ctx context.Context, topic string, event events.Event) error {
	if p.publish != nil {
		if err := p.publish(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	start, ok := event.(*eventsapi.TaskStart)
	if !ok || topic != "/tasks/start" {
		return fmt.Errorf("%s: %v", topic, event)
	}
	p.got = append(p.got, start.ContainerID)
	return nil
}

// Close implements [shim.Publisher].
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// TestQueueKeepsTheOrder and forwards what is left when it is closed.
func TestQueueKeepsTheOrder(t *testing.T) {
	p := &publisher{}
	q := New(t.Context(), p)
	const n = 1000
	for i := range n {
		q.Publish(sandbox.TaskStarted{ContainerID: fmt.Sprint(i)})
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.got) != n || !p.closed {
		t.Fatalf("%d events, closed %v", len(p.got), p.closed)
	}
	for i, id := range p.got {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, id)
		}
	}
}

// TestQueueNeverWaits for containerd, and an event that cannot be published does
// not hold up those after it.
func TestQueueNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := 2
		p := &publisher{publish: func(ctx context.Context) error {
			if stuck--; stuck < 0 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		q := New(t.Context(), p)
		begin := time.Now()
		for i := range 10 {
			q.Publish(sandbox.TaskStarted{ContainerID: fmt.Sprint(i)})
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("publishing took %s", took)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(p.got) != 8 || p.got[0] != "2" {
			t.Errorf("events %q", p.got)
		}
	})
}

func TestQueueCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := New(t.Context(), &publisher{publish: func(context.Context) error { <-release; return nil }})
		q.Publish(sandbox.TaskStarted{ContainerID: "c"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(release)
		<-q.done
	})
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
}
