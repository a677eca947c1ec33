package guestclock

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard)
	m.Run()
}

// keep keeps the clock of a guest in memory for a test that runs in a time of its
// own. delay is how long the guest's answer to the call of a number takes.
func keep(t *testing.T, delay func(call int) time.Duration, test func(t *testing.T, g *guesttest.Guest, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		g := guesttest.New(guesttest.Options{OnCall: func(guesttest.Call) error {
			<-time.After(delay(calls))
			calls++
			return nil
		}})
		k := Start(t.Context(), g)
		defer func() { _ = k.Close() }()
		test(t, g, k)
	})
}

func at(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// TestSet: the guest has the host's time, as exactly as its answers allow, whatever
// it had before. All of the delay here is on one way, which is the worst.
func TestSet(t *testing.T) {
	for _, behind := range []time.Duration{time.Hour, -time.Hour, 90 * time.Millisecond, -90 * time.Millisecond} {
		for _, delay := range []time.Duration{0, time.Microsecond, 40 * time.Millisecond} {
			keep(t, at(delay), func(t *testing.T, g *guesttest.Guest, k *Keeper) {
				g.SetBehind(behind)
				k.Set(t.Context())
				if got := g.Behind(); got.Abs() > delay/2 {
					t.Errorf("behind by %v with answers after %v: left are %v", behind, delay, got)
				}
				if slices.Contains(g.Calls(), "SlewClock") {
					t.Errorf("behind by %v: the clock was slewed", behind)
				}
			})
		}
	}
}

// TestFastestAnswer: one answer that comes soon is enough.
func TestFastestAnswer(t *testing.T) {
	for fast := range questions {
		delay := func(call int) time.Duration {
			if call == fast {
				return 2 * time.Millisecond
			}
			return time.Second
		}
		keep(t, delay, func(t *testing.T, g *guesttest.Guest, k *Keeper) {
			g.SetBehind(time.Minute)
			k.Set(t.Context())
			if got := g.Behind(); got.Abs() > time.Millisecond {
				t.Errorf("answer %d was fast: left are %v", fast, got)
			}
		})
	}
}

// TestUnknownDifference: what may be right stays as it is.
func TestUnknownDifference(t *testing.T) {
	keep(t, at(40*time.Millisecond), func(t *testing.T, g *guesttest.Guest, k *Keeper) {
		g.SetBehind(30 * time.Millisecond) // looks like 10, give or take 20
		k.Set(t.Context())
		if got := g.Behind(); got != 30*time.Millisecond {
			t.Errorf("behind by %v", got)
		}
	})
}

// TestDrift: a clock that goes wrong by itself is corrected within an Interval, a
// little slowly and much at once.
func TestDrift(t *testing.T) {
	for behind, want := range map[time.Duration]string{
		20 * time.Millisecond: "SlewClock", -127 * time.Millisecond: "SlewClock",
		129 * time.Millisecond: "StepClock", 8 * time.Hour: "StepClock", -8 * time.Hour: "StepClock",
	} {
		keep(t, at(0), func(t *testing.T, g *guesttest.Guest, k *Keeper) {
			k.Set(t.Context())
			g.SetBehind(behind)
			<-time.After(Interval + time.Second)
			synctest.Wait()
			if got := g.Behind(); got != 0 || !slices.Contains(g.Calls(), want) {
				t.Errorf("behind by %v: left are %v, calls %q, want %s", behind, got, g.Calls(), want)
			}
		})
	}
}

// TestGuestWithout: nothing waits for a guest that does not take the time, or does
// not answer, and it is asked again.
func TestGuestWithout(t *testing.T) {
	keep(t, at(0), func(t *testing.T, g *guesttest.Guest, k *Keeper) {
		g.SetBehind(time.Hour)
		g.Fail("AdjustClock", errdefs.ErrNotImplemented)
		k.Set(t.Context())
		g.Fail("AdjustClock", nil)
		release := g.Hang("StepClock")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		k.Set(ctx)
		k.Set(ctx) // the first one is still under way
		if ctx.Err() == nil || g.Behind() != time.Hour {
			t.Errorf("%v, behind by %v", ctx.Err(), g.Behind())
		}
		release()
		<-time.After(Interval)
		synctest.Wait()
		if got := g.Behind(); got != 0 {
			t.Errorf("behind by %v", got)
		}
	})
}

// TestClose ends a keeper whose guest does not answer.
func TestClose(t *testing.T) {
	keep(t, at(0), func(t *testing.T, g *guesttest.Guest, k *Keeper) {
		g.Hang("AdjustClock")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		k.Set(ctx)
		for range 2 {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
