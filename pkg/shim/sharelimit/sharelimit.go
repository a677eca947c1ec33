package sharelimit

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"
)

const (
	// rate is how many files a server opens in a second at most: one takes it some
	// microseconds. A mark that is missed by a factor of two is no harm, as
	// half of the limit is left.
	rate = 100_000
	// plenty is how many files a guest may remember whatever the limit is. Each keeps
	// some 1.5 KiB of the host's kernel, for which the sandbox's cgroup pays.
	plenty = 100_000
	// shortest and longest are the bounds of the time between two looks.
	shortest = 10 * time.Millisecond
	longest  = 5 * time.Second
	// again is how long a guest that has all it can have is left alone.
	again = time.Second
)

// Server is a server of files.
type Server interface {
	// Descriptors returns how many descriptors are open, and how many can be.
	Descriptors() (used, limit uint64, err error)
}

// Guest is a guest that can be asked to forget files.
type Guest interface {
	// DropCaches has the guest forget files that nobody uses, with pages also those
	// of which it has data.
	DropCaches(ctx context.Context, pages bool) error
}

// Watch watches one server.
type Watch struct {
	server Server
	guest  Guest
	cancel context.CancelFunc
	wg     sync.WaitGroup
	warned bool
}

// Start watches a server until Close, or until it has ended.
func Start(ctx context.Context, server Server, guest Guest) *Watch {
	w := &Watch{server: server, guest: guest}
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.wg.Go(func() {
		if err := w.run(ctx); ctx.Err() == nil {
			log.G(ctx).WithError(err).Debug("the descriptors of the share's server are no longer watched")
		}
	})
	return w
}

// Close ends that. It is idempotent.
func (w *Watch) Close() error {
	w.cancel()
	w.wg.Wait()
	return nil
}

// run looks at the count until it cannot be had, and returns why.
func (w *Watch) run(ctx context.Context) error {
	mark := uint64(0) // above the start, after a guest could not forget enough
	for {
		used, limit, err := w.server.Descriptors()
		if err != nil {
			return err
		}
		wait := until(used, limit, mark)
		if wait == 0 {
			if used, limit, err = w.relieve(ctx); err != nil {
				return err
			}
			mark, wait = after(used, limit)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// start is from where on a guest is asked.
func start(limit uint64) uint64 { return min(limit/2, plenty) }

// until is how long it takes until the mark can be passed by half as much again, or by half
// of what is left beyond it: 0 when the mark is reached. So a guest that stays just below it
// is not looked at all the time.
func until(used, limit, mark uint64) time.Duration {
	mark = max(mark, start(limit))
	if used >= mark {
		return 0
	}
	files := mark - used + min(mark, limit-min(mark, limit))/2
	return min(max(time.Duration(files)*time.Second/rate, shortest), longest)
}

// after is the mark that follows what a guest has left, and how soon it counts: what
// it could not forget moves it up, halfway to the limit at most. With little room left the guest is asked regularly, but not
// all the time.
func after(used, limit uint64) (mark uint64, wait time.Duration) {
	room := limit - min(used, limit)
	switch {
	case used < start(limit):
		return 0, shortest
	case room < limit/8:
		return used, again
	}
	return used + min(room/2, plenty), shortest
}

// relieve has the guest forget files, and returns what is left.
func (w *Watch) relieve(ctx context.Context) (used, limit uint64, err error) {
	for _, pages := range []bool{false, true} {
		if err := w.guest.DropCaches(ctx, pages); err != nil {
			// A paused guest opens nothing; one that does not answer is looked after
			// elsewhere.
			log.G(ctx).WithError(err).Debug("the guest was not asked to forget files")
		}
		if used, limit, err = w.settled(ctx); err != nil || used < start(limit) {
			return used, limit, err
		}
	}
	if !w.warned && used > limit/8*7 {
		w.warned = true
		log.G(ctx).WithField("descriptors", used).WithField("limit", limit).Warn("the pod has nearly as many files open as the share's server can: " +
			"raise the limit of open files of containerd's service (LimitNOFILE)")
	}
	return used, limit, nil
}

// settled returns the count when it no longer falls: what a guest forgets arrives
// some time later.
func (w *Watch) settled(ctx context.Context) (used, limit uint64, err error) {
	before := ^uint64(0)
	for {
		used, limit, err = w.server.Descriptors()
		if err != nil || used >= before {
			return used, limit, err
		}
		before = used
		if err := sleep(ctx, shortest); err != nil {
			return 0, 0, err
		}
	}
}

// sleep waits, or returns why not.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
