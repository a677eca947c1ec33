package sharelimit

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/log"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard)
	m.Run()
}

// host is a server with a guest that walks over files.
type host struct {
	limit    uint64
	names    atomic.Int64 // files without data, which the guest remembers
	pages    atomic.Int64 // files with data
	open     atomic.Int64
	looks    atomic.Int64
	refuse   atomic.Bool
	ended    atomic.Bool
	overflow atomic.Bool // the limit was reached

	mu   sync.Mutex // guards what the guest was asked for
	told []string
}

// ask notes what the guest is asked for.
func (h *host) ask(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, what)
}

// asked is what it was asked for.
func (h *host) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told)
}

func (h *host) used() uint64 { return uint64(h.names.Load() + h.pages.Load() + h.open.Load()) }

func (h *host) Descriptors() (used, limit uint64, err error) {
	h.looks.Add(1)
	if h.ended.Load() {
		return 0, 0, errors.New("gone")
	}
	return h.used(), h.limit, nil
}

func (h *host) DropCaches(_ context.Context, pages bool) error {
	if h.refuse.Load() {
		return errors.New("paused")
	}
	<-time.After(20 * time.Millisecond)
	h.names.Store(0)
	if !pages {
		h.ask("names")
		return nil
	}
	h.ask("all")
	h.pages.Store(0)
	return nil
}

// walk adds n files in a second, one after the other.
func (h *host) walk(kind *atomic.Int64, n int) {
	const steps = 1000
	for range steps {
		<-time.After(time.Second / steps)
		kind.Add(int64(n / steps))
		if h.used() >= h.limit {
			h.overflow.Store(true)
		}
	}
}

// watch runs a test with a watched server, in a time of its own.
func watch(t *testing.T, h *host, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := Start(t.Context(), h, h)
		defer func() { _ = w.Close() }()
		test(t)
	})
}

// TestWalk: as fast as a server can be, over many times what it can hold.
func TestWalk(t *testing.T) {
	for _, limit := range []uint64{2_000, 20_000, 1_000_000} {
		n := int(min(limit*5, 90_000))
		h := &host{limit: limit}
		watch(t, h, func(t *testing.T) {
			for range 10 {
				h.walk(&h.names, min(n, int(limit)*20)) // a guest's own speed bounds a small one
			}
			if h.overflow.Load() {
				t.Errorf("limit %d: it was reached", limit)
			}
			if slices.Contains(h.asked(), "all") {
				t.Errorf("limit %d: data was dropped for nothing: %q", limit, h.asked())
			}
		})
	}
}

// TestPlenty: a server that could hold a million files is spared most of them.
func TestPlenty(t *testing.T) {
	h := &host{limit: 1_000_000}
	watch(t, h, func(t *testing.T) {
		for range 30 {
			h.walk(&h.names, 90_000)
			if n := h.used(); n > 3*plenty {
				t.Errorf("%d files are open", n)
			}
		}
	})
}

// TestPages: files with data in memory need the second step.
func TestPages(t *testing.T) {
	h := &host{limit: 20_000}
	watch(t, h, func(t *testing.T) {
		for range 10 {
			h.walk(&h.pages, 90_000)
		}
		if h.overflow.Load() || !slices.Contains(h.asked(), "all") {
			t.Errorf("limit reached: %v, asked %d times", h.overflow.Load(), len(h.asked()))
		}
	})
}

// TestOpen: files that are open cannot be forgotten, and the guest is not asked for
// them again and again. What comes beside them is.
func TestOpen(t *testing.T) {
	h := &host{limit: 20_000}
	watch(t, h, func(t *testing.T) {
		h.open.Store(14_000)
		<-time.After(time.Minute)
		if n := len(h.asked()); n != 2 {
			t.Errorf("asked %d times for what is open: %q", n, h.asked())
		}
		h.walk(&h.names, 30_000)
		if h.overflow.Load() {
			t.Error("the limit was reached beside open files")
		}
	})
}

// TestFull: with hardly any room the guest is asked at most once a second, and what it
// can forget goes.
func TestFull(t *testing.T) {
	h := &host{limit: 20_000}
	watch(t, h, func(t *testing.T) {
		h.open.Store(19_900)
		<-time.After(time.Minute)
		if n := len(h.asked()); n < 20 || n > 130 {
			t.Errorf("asked %d times in a minute", n)
		}
		h.names.Store(100)
		<-time.After(2 * time.Second)
		if n := h.names.Load(); n != 0 {
			t.Errorf("%d files that nobody uses are left", n)
		}
	})
}

// TestIdle: a server with the usual limit is seldom looked at, and one with a small
// limit some ten times a second.
func TestIdle(t *testing.T) {
	for limit, most := range map[uint64]int64{1_000_000: 70, 20_000: 700} {
		h := &host{limit: limit}
		watch(t, h, func(t *testing.T) {
			h.names.Store(50)
			<-time.After(time.Minute)
			if n := h.looks.Load(); n > most {
				t.Errorf("limit %d: %d looks in a minute", limit, n)
			}
		})
	}
}

// TestJustBelow: a guest that stays just below the mark is not looked at all the time: on a
// host before Linux 6.2 a look reads one name for each descriptor.
func TestJustBelow(t *testing.T) {
	for limit, most := range map[uint64]int64{1_000_000: 130, 20_000: 1300} {
		h := &host{limit: limit}
		watch(t, h, func(t *testing.T) {
			h.open.Store(int64(start(limit) - 1))
			<-time.After(time.Minute)
			if n := h.looks.Load(); n > most {
				t.Errorf("limit %d: %d looks in a minute", limit, n)
			}
		})
	}
}

// TestRefused: a guest that cannot be asked, as it is paused, is asked later.
func TestRefused(t *testing.T) {
	h := &host{limit: 20_000}
	h.refuse.Store(true)
	watch(t, h, func(t *testing.T) {
		h.names.Store(19_000)
		<-time.After(10 * time.Second)
		h.refuse.Store(false)
		<-time.After(2 * time.Second)
		if n := h.names.Load(); n != 0 {
			t.Errorf("%d files are left", n)
		}
	})
}

// TestEnd: nothing is done after the server's end, or after Close.
func TestEnd(t *testing.T) {
	h := &host{limit: 20_000}
	watch(t, h, func(t *testing.T) {
		h.ended.Store(true)
		<-time.After(time.Minute)
		looks := h.looks.Load()
		<-time.After(time.Minute)
		if h.looks.Load() != looks {
			t.Error("a server that has ended is looked at")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := Start(t.Context(), &host{limit: 1}, &host{})
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
