package guestclock

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Interval is how often a guest is asked by itself. The clocks of host and guest
// part by some ten milliseconds in that time when the host's is being slewed as fast
// as NTP does that, 500 µs a second.
const Interval = time.Minute

// stepLimit is the difference from which a clock is set at once, in either
// direction: that of ntpd. Below, the guest slews by 30 ms in an Interval, and no
// process sees the time jump.
const stepLimit = 128 * time.Millisecond

// questions is how many round trips are measured at most. One is often the victim of what
// else goes on; most of several are seldom.
const questions = 4

// exact is how wrong a difference may be that no further question is asked for: the first
// container waits for the answers, and the guest's own ticks are 4 ms apart.
const exact = 2 * time.Millisecond

// Guest is a guest whose clock can be set.
type Guest interface {
	// AdjustClock changes the guest's clock, and returns what it says afterwards.
	AdjustClock(ctx context.Context, a hyperstart.AdjustClockRequest) (time.Time, error)
}

// Keeper keeps the clock of one guest.
type Keeper struct {
	guest  Guest
	asked  chan chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start keeps the clock of a guest until Close.
func Start(ctx context.Context, guest Guest) *Keeper {
	k := &Keeper{guest: guest, asked: make(chan chan struct{})}
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.wg.Go(func() { k.run(ctx) })
	return k
}

// Close ends that. It is idempotent.
func (k *Keeper) Close() error {
	k.cancel()
	k.wg.Wait()
	return nil
}

// Set returns when the guest has the host's time, or cannot be given it, or ctx
// ends. The clock is not slewed: whoever asks knows that it stood still.
func (k *Keeper) Set(ctx context.Context) {
	done := make(chan struct{})
	select {
	case k.asked <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (k *Keeper) run(ctx context.Context) {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			k.adjust(ctx, stepLimit)
		case done := <-k.asked:
			k.adjust(ctx, 0)
			close(done)
		case <-ctx.Done():
			return
		}
	}
}

// adjust corrects what is certainly wrong, by a step from a limit on. A guest that
// does not answer, or is paused, keeps its clock until the next time.
func (k *Keeper) adjust(ctx context.Context, step time.Duration) {
	d, err := k.measure(ctx)
	wrong := d.behind.Abs()
	if err == nil && wrong > d.within {
		var a hyperstart.AdjustClockRequest
		if wrong >= step {
			a.Step = int64(d.behind)
		} else {
			a.Slew = int64(d.behind)
		}
		_, err = k.guest.AdjustClock(ctx, a)
	}
	entry := log.G(ctx).WithField("behind", d.behind.String()).WithField("within", d.within.String())
	if err != nil {
		entry.WithError(err).Debug("the guest's clock was not set")
		return
	}
	entry.Debug("the guest's clock was looked at")
}

// difference is how far a guest's clock is behind the host's. It can be wrong by
// as much as within.
type difference struct{ behind, within time.Duration }

// measure asks until an answer is fast enough, a few times at most; the fastest says most.
func (k *Keeper) measure(ctx context.Context) (best difference, err error) {
	for i := range questions {
		before := time.Now()
		guest, err := k.guest.AdjustClock(ctx, hyperstart.AdjustClockRequest{})
		if err != nil {
			return best, err
		}
		half := time.Since(before) / 2
		if i == 0 || half < best.within {
			// Without the monotonic reading: the guest has none of the host's.
			best = difference{behind: before.Round(0).Add(half).Sub(guest), within: half}
		}
		if best.within <= exact {
			break
		}
	}
	return best, nil
}
