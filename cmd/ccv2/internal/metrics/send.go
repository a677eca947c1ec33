package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// send sends the sums.
func (s *sums) send(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for key, n := range s.starts {
		counter(startsTotal, n, key.source, key.result)
	}
	for phase, n := range s.phaseFailures {
		counter(phaseFailures, n, phase)
	}
	for cause, n := range s.failures {
		counter(failuresTotal, n, cause)
	}
	for key, n := range s.callFailures {
		counter(callFailures, n, key.operation, key.code)
	}
	for kind, n := range s.events {
		counter(eventsTotal, n, kind)
	}
	for key, n := range s.messages {
		counter(messagesTotal, n, key.layer, key.direction, key.kind)
		counter(messageBytes, s.messageBytes[key], key.layer, key.direction, key.kind)
	}
	for desc, all := range map[*prometheus.Desc]map[string]*histogram{startSeconds: s.start, phaseSeconds: s.phases, callSeconds: s.calls} {
		for label, h := range all {
			count, sum, buckets := h.cumulative()
			out <- prometheus.MustNewConstHistogram(desc, count, sum, buckets, label)
		}
	}
}

// sender sends metrics of one pod.
type sender struct {
	out    chan<- prometheus.Metric
	labels []string
}

func (s sender) gauge(d *prometheus.Desc, v float64, more ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append(append([]string{}, s.labels...), more...)...)
}

func (s sender) counter(d *prometheus.Desc, v float64, more ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, append(append([]string{}, s.labels...), more...)...)
}

// send sends the metrics of a pod.
func (s snapshot) send(out chan<- prometheus.Metric, labels []string) {
	to := sender{out, labels}
	about := s.record.Saved.About
	to.gauge(podInfo, 1, line(about.Source), line(about.Accelerator))
	to.gauge(podCreated, float64(s.record.Saved.Created.UnixMilli())/1000)
	to.gauge(podVCPUs, float64(about.CPUs))
	to.gauge(podVMMemory, float64(about.MemoryMiB)*(1<<20))
	var pss int64
	for _, p := range s.processes {
		to.gauge(podMemory, float64(p.PSSBytes), line(p.Name))
		to.counter(podCPU, float64(p.CPUNanoseconds)/1e9, line(p.Name))
		pss += p.PSSBytes
		if p.Name == "virtiofsd" {
			to.counter(podShareBytes, float64(p.ReadBytes), "read")
			to.counter(podShareBytes, float64(p.WrittenBytes), "write")
			to.counter(podShareCalls, float64(p.Reads), "read")
			to.counter(podShareCalls, float64(p.Writes), "write")
		}
	}
	if s.shown != "unknown" { // it was asked
		to.gauge(podUp, truth(s.counters != nil))
	}
	if s.counters != nil {
		to.sendCounters(*s.counters, pss)
	}
}

// sendCounters sends what the shim has said.
func (s sender) sendCounters(c debugapi.Counters, pss int64) {
	s.gauge(podHealthy, truth(c.Unhealthy == "" && c.Failure == ""))
	if !c.Heartbeat.IsZero() {
		s.gauge(podHeartbeat, float64(c.Heartbeat.UnixMilli())/1000)
	}
	if c.Source != "" {
		s.gauge(podStart, startOf(c).Seconds())
	}
	if g := c.Guest; g != nil {
		s.gauge(podGuestMemory, float64(g.MemTotal))
		s.gauge(podGuestFree, float64(g.MemAvailable))
		used := int64(g.MemTotal) - int64(g.MemAvailable) - int64(g.AgentRSS)
		s.gauge(podOverhead, float64(pss-max(0, used)))
	}
	s.counter(podOOM, float64(c.Events["oom"]))
	streams := map[string]uint64{"input": 0, "output": 0}
	messages, bytes := map[[2]string]uint64{}, map[[2]string]uint64{}
	for _, w := range c.Wire {
		k := kindOf(w)
		messages[[2]string{k.layer, k.direction}] += w.Messages
		bytes[[2]string{k.layer, k.direction}] += w.Bytes
		if w.Layer == "tty" && w.Kind == "data" {
			stream := "input"
			if w.ToHost {
				stream = "output"
			}
			streams[stream] += w.Bytes
		}
	}
	for stream, n := range streams {
		s.counter(podStreamBytes, float64(n), stream)
	}
	for key, n := range messages {
		s.counter(podMessages, float64(n), key[0], key[1])
		s.counter(podMessageBytes, float64(bytes[key]), key[0], key[1])
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
