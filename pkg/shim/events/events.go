package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/sandbox"
)

// publishTimeout bounds one attempt; the publisher retries by itself.
const publishTimeout = 5 * time.Second

// Queue forwards events to containerd in their order. It is unbounded, because
// the domain must not wait for containerd: an event is small, and each one
// belongs to a request or to a process that a request started.
type Queue struct {
	publisher shim.Publisher
	done      chan struct{} // closed when all events were forwarded after close

	mu     sync.Mutex // guards the fields below
	cond   *sync.Cond // on mu
	events []sandbox.Event
	closed bool
}

// New returns a queue that forwards to publisher, which becomes its own, until
// Close.
func New(ctx context.Context, publisher shim.Publisher) *Queue {
	q := &Queue{publisher: publisher, done: make(chan struct{})}
	q.cond = sync.NewCond(&q.mu)
	go q.forward(context.WithoutCancel(ctx))
	return q
}

// Publish implements [sandbox.Sink].
func (q *Queue) Publish(e sandbox.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events = append(q.events, e)
	q.cond.Signal()
}

// Close forwards what is left, ends the forwarder and closes the publisher, or
// gives up with ctx. It is called once.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.cond.Signal()
	q.mu.Unlock()
	select {
	case <-q.done:
		return q.publisher.Close()
	case <-ctx.Done():
		return fmt.Errorf("forward the last events: %w", ctx.Err())
	}
}

func (q *Queue) forward(ctx context.Context) {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.events) == 0 && !q.closed {
			q.cond.Wait()
		}
		batch := q.events
		q.events = nil
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			q.send(ctx, convertEvent(e))
		}
	}
}

func (q *Queue) send(ctx context.Context, e any) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := q.publisher.Publish(ctx, runtime.GetTopic(e), e); err != nil {
		log.G(ctx).WithError(err).WithField("topic", runtime.GetTopic(e)).Error("publish event")
	}
}

// convertEvent translates an event for containerd.
func convertEvent(event sandbox.Event) any {
	switch e := event.(type) {
	case sandbox.TaskCreated:
		init, _ := e.Container.Process("") // it always exists
		io := init.Stdio()
		return &eventsapi.TaskCreate{
			ContainerID: e.Container.ID,
			Bundle:      e.Container.Bundle,
			Rootfs:      mount.ToProto(e.Container.Rootfs),
			IO:          &eventsapi.TaskIO{Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr, Terminal: io.Terminal},
			Pid:         uint32(e.PID),
		}
	case sandbox.TaskStarted:
		return &eventsapi.TaskStart{ContainerID: e.ContainerID, Pid: uint32(e.PID)}
	case sandbox.ExecAdded:
		return &eventsapi.TaskExecAdded{ContainerID: e.ContainerID, ExecID: e.ExecID}
	case sandbox.ExecStarted:
		return &eventsapi.TaskExecStarted{ContainerID: e.ContainerID, ExecID: e.ExecID, Pid: uint32(e.PID)}
	case sandbox.TaskExited:
		id := e.ExecID
		if id == "" {
			id = e.ContainerID
		}
		return &eventsapi.TaskExit{ContainerID: e.ContainerID, ID: id, Pid: uint32(e.PID), ExitStatus: e.Status, ExitedAt: timestamppb.New(e.At)}
	case sandbox.TaskDeleted:
		return &eventsapi.TaskDelete{ContainerID: e.ContainerID, ID: e.ContainerID, Pid: uint32(e.PID), ExitStatus: e.Status, ExitedAt: timestamppb.New(e.At)}
	case sandbox.TaskPaused:
		return &eventsapi.TaskPaused{ContainerID: e.ContainerID}
	case sandbox.TaskResumed:
		return &eventsapi.TaskResumed{ContainerID: e.ContainerID}
	case sandbox.TaskOOM:
		return &eventsapi.TaskOOM{ContainerID: e.ContainerID}
	}
	return nil
}
