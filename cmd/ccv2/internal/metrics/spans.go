package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/otlp"
)

// Of the spans that are sent, where they are.
var (
	spansSent     = hostDesc("spans_sent_total", "Spans that a collector has got.")
	spansLost     = hostDesc("spans_lost_total", "Spans that were replaced or removed before they could be sent.")
	spansFailures = hostDesc("spans_send_failures_total", "Attempts to send spans that have failed.")
)

// Spans tells of an exporter of spans what it has done.
type Spans func() otlp.Counts

// Describe implements [prometheus.Collector].
func (s Spans) Describe(out chan<- *prometheus.Desc) {
	out <- spansSent
	out <- spansLost
	out <- spansFailures
}

// Collect implements [prometheus.Collector].
func (s Spans) Collect(out chan<- prometheus.Metric) {
	n := s()
	out <- prometheus.MustNewConstMetric(spansSent, prometheus.CounterValue, float64(n.Sent))
	out <- prometheus.MustNewConstMetric(spansLost, prometheus.CounterValue, float64(n.Lost))
	out <- prometheus.MustNewConstMetric(spansFailures, prometheus.CounterValue, float64(n.Failures))
}
