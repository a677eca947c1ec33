package metrics

import (
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// histogram counts durations. Its ranges do not overlap.
type histogram struct {
	bounds []float64 // seconds
	counts []uint64  // one more than bounds
	sum    float64
}

// startBounds suit a start and its steps, emulated or not, in seconds.
var startBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30}

func newHistogram(bounds []float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

// observe adds a duration.
func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(h.bounds) && d.Seconds() > h.bounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += d.Seconds()
}

// cumulative is the histogram as Prometheus has it.
func (h *histogram) cumulative() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(h.bounds))
	for i, bound := range h.bounds {
		count += h.counts[i]
		buckets[bound] = count
	}
	return count + h.counts[len(h.bounds)], h.sum, buckets
}

// Keys of sums.
type (
	operationCode struct{ operation, code string }
	startResult   struct{ source, result string }
	messageKind   struct{ layer, direction, kind string }
)

// sums are those of all sandboxes, those that have ended among them.
type sums struct {
	starts        map[startResult]uint64
	start         map[string]*histogram // by source
	phases        map[string]*histogram // by name
	phaseFailures map[string]uint64
	failures      map[string]uint64
	calls         map[string]*histogram // by operation
	callFailures  map[operationCode]uint64
	events        map[string]uint64
	messages      map[messageKind]uint64
	messageBytes  map[messageKind]uint64
}

func newSums() *sums {
	s := &sums{
		starts: map[startResult]uint64{}, start: map[string]*histogram{}, phases: map[string]*histogram{}, phaseFailures: map[string]uint64{},
		failures: map[string]uint64{}, calls: map[string]*histogram{}, callFailures: map[operationCode]uint64{}, events: map[string]uint64{},
		messages: map[messageKind]uint64{}, messageBytes: map[messageKind]uint64{},
	}
	for _, source := range []string{"boot", "template", "spare"} { // a rate needs a zero to begin with
		s.starts[startResult{source, "success"}] = 0
	}
	s.starts[startResult{"", "failure"}] = 0
	for _, cause := range []string{"qemu", "virtiofsd", "guest", "host_oom", "unkillable", "hung", "operator", "shim"} {
		s.failures[cause] = 0
	}
	return s
}

// seen is what was added of a sandbox already.
type seen struct {
	counters debugapi.Counters
	started  bool // its start, or the failure of it, was counted
	phases   int  // so many of its steps
}

// add adds what a sandbox has counted since it was seen last.
func (s *sums) add(last *seen, now debugapi.Counters) {
	s.addStart(last, now)
	before := last.counters
	if now.Failure != "" && before.Failure == "" {
		s.failures[now.Failure]++
	}
	for kind, n := range now.Events {
		s.events[kind] += more(n, before.Events[kind])
	}
	s.addCalls(before, now)
	wire := make(map[messageKind]debugapi.WireCount, len(before.Wire))
	for _, w := range before.Wire {
		wire[kindOf(w)] = w
	}
	for _, w := range now.Wire {
		s.messages[kindOf(w)] += more(w.Messages, wire[kindOf(w)].Messages)
		s.messageBytes[kindOf(w)] += more(w.Bytes, wire[kindOf(w)].Bytes)
	}
	last.counters = now
}

// addStart adds the steps of the start that have ended, and the start when it has.
func (s *sums) addStart(last *seen, now debugapi.Counters) {
	for ; last.phases < len(now.Phases) && !now.Phases[last.phases].Running; last.phases++ {
		p := now.Phases[last.phases]
		histogramOf(s.phases, p.Name, startBounds).observe(time.Duration(p.Nanoseconds))
		s.phaseFailures[p.Name] += 0 // each step has a zero to begin with
		if p.Error != "" {
			s.phaseFailures[p.Name]++
		}
	}
	switch {
	case last.started:
	case now.Source != "":
		last.started = true
		s.starts[startResult{now.Source, "success"}]++
		histogramOf(s.start, now.Source, startBounds).observe(startOf(now))
	case now.FailedPhase != "":
		last.started = true
		s.starts[startResult{"", "failure"}]++
	}
}

// startOf is how long the start has taken.
func startOf(c debugapi.Counters) time.Duration {
	if len(c.Phases) == 0 {
		return 0
	}
	last := c.Phases[len(c.Phases)-1]
	return last.Begin.Add(time.Duration(last.Nanoseconds)).Sub(c.Phases[0].Begin)
}

func (s *sums) addCalls(before, now debugapi.Counters) {
	known := make(map[string]debugapi.Operation, len(before.Calls))
	for _, o := range before.Calls {
		known[o.Name] = o
	}
	for _, o := range now.Calls {
		old := known[o.Name]
		h := histogramOf(s.calls, o.Name, seconds(o.Bounds))
		if len(o.Took) != len(h.counts) { // of a shim of another release
			continue
		}
		for i, n := range o.Took {
			if i < len(old.Took) {
				n = more(n, old.Took[i])
			}
			h.counts[i] += n
		}
		h.sum += time.Duration(max(0, o.Total-old.Total)).Seconds()
		for code, n := range o.Failed {
			s.callFailures[operationCode{o.Name, code}] += more(n, old.Failed[code])
		}
	}
}

// more is by how much a counter has grown.
func more(now, before uint64) uint64 { return max(now, before) - before }

func seconds(bounds []int64) []float64 {
	all := make([]float64, len(bounds))
	for i, b := range bounds {
		all[i] = time.Duration(b).Seconds()
	}
	return all
}

func histogramOf(all map[string]*histogram, name string, bounds []float64) *histogram {
	if all[name] == nil {
		all[name] = newHistogram(bounds)
	}
	return all[name]
}

func kindOf(w debugapi.WireCount) messageKind {
	direction := "to_guest"
	if w.ToHost {
		direction = "to_host"
	}
	return messageKind{w.Layer, direction, w.Kind}
}
