//go:build e2e

package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"
)

// Event is one event of a task.
type Event struct {
	Topic     string // without "/tasks/"
	Container string
	Process   string // exec id, "" for the init process
	Status    uint32 // of exit and delete
}

func (e Event) String() string {
	return fmt.Sprintf("%s %s/%s %d", e.Topic, e.Container, e.Process, e.Status)
}

// Events records what containerd says about tasks.
type Events struct {
	mu   sync.Mutex // guards list
	list []Event
}

// Record starts to record the events of the Host's namespace. It ends with the
// test, or with containerd.
func (c *Containerd) Record(tb testing.TB) *Events {
	tb.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	tb.Cleanup(cancel)
	envelopes, errs := c.Client.Subscribe(ctx, "namespace=="+c.Namespace+`,topic~="/tasks/.+"`)
	events := &Events{}
	go func() {
		for {
			select {
			case e := <-envelopes:
				if v, err := typeurl.UnmarshalAny(e.Event); err == nil {
					events.add(strings.TrimPrefix(e.Topic, "/tasks/"), v)
				}
			case <-errs: //nolint:errcheck // containerd ended, or the test
				return
			}
		}
	}()
	return events
}

func (r *Events) add(topic string, v any) {
	e := Event{Topic: topic}
	switch t := v.(type) {
	case *eventsapi.TaskExit:
		e.Container, e.Status = t.ContainerID, t.ExitStatus
		if t.ID != t.ContainerID {
			e.Process = t.ID
		}
	case *eventsapi.TaskDelete:
		e.Container, e.Status = t.ContainerID, t.ExitStatus
		if t.ID != t.ContainerID {
			e.Process = t.ID
		}
	case *eventsapi.TaskExecAdded:
		e.Container, e.Process = t.ContainerID, t.ExecID
	case *eventsapi.TaskExecStarted:
		e.Container, e.Process = t.ContainerID, t.ExecID
	case interface{ GetContainerID() string }:
		e.Container = t.GetContainerID()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

// Of returns the events of one container so far.
func (r *Events) Of(container string) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Event
	for _, e := range r.list {
		if e.Container == container {
			list = append(list, e)
		}
	}
	return list
}

// Has reports whether there was an event of a container.
func (r *Events) Has(topic, container string) bool {
	return slices.ContainsFunc(r.Of(container), func(e Event) bool { return e.Topic == topic })
}

// Seen reports whether there was an event of any container.
func (r *Events) Seen(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.list, func(e Event) bool { return e.Topic == topic })
}

// Await waits for an event of a container's process and returns it.
func (r *Events) Await(tb testing.TB, topic, container, process string) Event {
	tb.Helper()
	var found Event
	Until(tb, fmt.Sprintf("event %s of %s/%s", topic, container, process), func() bool {
		i := slices.IndexFunc(r.Of(container), func(e Event) bool { return e.Topic == topic && e.Process == process })
		if i >= 0 {
			found = r.Of(container)[i]
		}
		return i >= 0
	})
	return found
}
