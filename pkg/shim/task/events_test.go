package task

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
	q := newQueue(t.Context(), p)
	const n = 1000
	for i := range n {
		q.Publish(sandbox.TaskStarted{ContainerID: fmt.Sprint(i)})
	}
	if err := q.close(t.Context()); err != nil {
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

// TestQueueNeverWaits for containerd, and an event that cannot be told does
// not hold up those behind it for ever.
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
		q := newQueue(t.Context(), p)
		begin := time.Now()
		for i := range 10 {
			q.Publish(sandbox.TaskStarted{ContainerID: fmt.Sprint(i)})
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("publishing took %s", took)
		}
		if err := q.close(t.Context()); err != nil {
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
		q := newQueue(t.Context(), &publisher{publish: func(context.Context) error { <-release; return nil }})
		q.Publish(sandbox.TaskStarted{ContainerID: "c"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(release)
		<-q.done
	})
}
