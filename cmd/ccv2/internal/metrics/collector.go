package metrics

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Options are what a Collector works with.
type Options struct {
	StateDir string
	Version  string
	Limit    time.Duration // for the answer of one shim
	MaxPods  int           // that have metrics of their own
	Overhead int64         // of the RuntimeClass, in bytes; 0 when it is not known
	// Warn gets what could not be read.
	Warn func(error)
}

// Collector implements [prometheus.Collector].
type Collector struct {
	opts Options

	mu    sync.Mutex // held during a scrape; guards what follows
	sums  *sums
	known map[string]*seen // by the id of a sandbox that lives, in its namespace
	ended map[string]bool  // the journals that were read and are still there
}

// New returns a collector. What sandboxes that live have counted so far is theirs, and in the sums; what
// has ended before is not.
func New(opts Options) *Collector {
	c := &Collector{opts: opts, sums: newSums(), known: map[string]*seen{}, ended: map[string]bool{}}
	paths, err := store.Ended(opts.StateDir)
	if err != nil {
		opts.Warn(err)
	}
	for _, path := range paths {
		c.ended[path] = true
	}
	return c
}

// Describe implements [prometheus.Collector]. What there is depends on the pods.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// snapshot is what one sandbox has said.
type snapshot struct {
	record    sandboxes.Record
	shown     string // state, as ccv2 ps has it
	processes []sandboxes.Process
	counters  *debugapi.Counters // nil when its shim did not answer
}

const (
	// atOnce is how many shims are asked at the same time.
	atOnce = 64
	// rounds is how many limits a scrape may take: with more shims that hang than atOnce some are not asked.
	rounds = 2
)

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begin := time.Now()
	records, err := sandboxes.All(c.opts.StateDir)
	if err != nil {
		c.opts.Warn(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rounds*c.opts.Limit)
	defer cancel()
	all := make([]snapshot, len(records))
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, r := range records {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			all[i] = ask(ctx, r, c.opts.Limit)
		})
	}
	wg.Wait()
	c.count(all)
	c.send(out, all)
	out <- prometheus.MustNewConstMetric(scrapeDuration, prometheus.GaugeValue, time.Since(begin).Seconds())
}

// ask looks at one sandbox.
func ask(ctx context.Context, r sandboxes.Record, limit time.Duration) snapshot {
	s := snapshot{record: r, shown: "unknown"}
	if r.Err != nil {
		return s
	}
	for _, p := range append([]store.Process{r.Saved.Shim}, r.Saved.Processes...) {
		if p.Alive() {
			s.processes = append(s.processes, sandboxes.Measure(p.Name, p.PID))
		}
	}
	if s.shown = "dead"; !r.Saved.Shim.Alive() {
		return s
	}
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	counters, err := sandboxes.AskCounters(bounded, r)
	switch {
	case err != nil && ctx.Err() != nil && time.Since(begin) < limit/2: // the scrape had no time left for it
		s.shown = "unknown"
		return s
	case err != nil:
		s.shown = "hung"
		return s
	}
	s.shown, s.counters = counters.State, &counters
	return s
}

// count adds to the sums what is new.
func (c *Collector) count(all []snapshot) {
	there := make(map[string]bool, len(all))
	for _, s := range all {
		key := s.record.Saved.Namespace + "/" + s.record.Saved.ID
		there[key] = true
		if s.counters != nil {
			c.sums.add(c.seen(key), *s.counters)
		}
	}
	c.countEnded(there)
	for key := range c.known {
		if !there[key] {
			delete(c.known, key)
		}
	}
}

// countEnded adds what sandboxes that have ended since have left.
func (c *Collector) countEnded(there map[string]bool) {
	paths, err := store.Ended(c.opts.StateDir)
	if err != nil {
		c.opts.Warn(err) // and what was read is still known
		return
	}
	before := c.ended
	c.ended = make(map[string]bool, len(paths))
	for _, path := range paths {
		c.ended[path] = true
		if before[path] { // by name: of two that end at once the later one may be there first
			continue
		}
		j, err := sandboxes.ReadJournal(path)
		if err != nil {
			c.opts.Warn(err)
			continue
		}
		key := j.Sandbox.Namespace + "/" + j.Sandbox.ID
		if j.Counters != nil {
			c.sums.add(c.seen(key), *j.Counters)
		} else {
			c.sums.failures["shim"]++ // it has died, and has counted nothing at its end
		}
		if !there[key] { // another one of the same id, otherwise
			delete(c.known, key)
		}
	}
}

func (c *Collector) seen(key string) *seen {
	if c.known[key] == nil {
		c.known[key] = new(seen)
	}
	return c.known[key]
}

// send sends all metrics.
func (c *Collector) send(out chan<- prometheus.Metric, all []snapshot) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildInfo, 1, c.opts.Version)
	if c.opts.Overhead > 0 {
		gauge(overheadDeclare, float64(c.opts.Overhead))
	}
	states := map[string]int{"booting": 0, "ready": 0, "stopping": 0, "hung": 0, "dead": 0, "unknown": 0}
	for _, s := range all {
		states[line(s.shown)]++
	}
	for state, n := range states {
		gauge(sandboxCount, float64(n), state)
	}
	c.sums.send(out)
	// The oldest ones keep their metrics when there are too many.
	pods := slices.DeleteFunc(all, func(s snapshot) bool { return s.record.Err != nil })
	slices.SortStableFunc(pods, func(a, b snapshot) int { return a.record.Saved.Created.Compare(b.record.Saved.Created) })
	gauge(podsOmitted, float64(max(0, len(pods)-c.opts.MaxPods)))
	used := make(map[string]bool, len(pods))
	for _, s := range pods[:min(len(pods), c.opts.MaxPods)] {
		if labels := labelsOf(s.record); !used[strings.Join(labels, "\x00")] {
			used[strings.Join(labels, "\x00")] = true
			s.send(out, labels)
		}
	}
}

// labelsOf name a pod. A sandbox without a pod is named by its id.
func labelsOf(r sandboxes.Record) []string {
	const idLen = 13
	about, id := r.Saved.About, line(r.Saved.ID)
	return []string{line(about.PodNamespace), line(about.Pod), strings.ToValidUTF8(id[:min(len(id), idLen)], "")} // of a character that was cut nothing
}

func line(s string) string { return printable.Line(s, printable.MaxName) }
