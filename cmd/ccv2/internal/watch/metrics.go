package watch

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/metrics"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/otlp"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
)

func metricsCommand(t *tool) *cli.Command {
	var listen, endpoint string
	var maxPods, overheadMiB int
	return &cli.Command{
		Name: "metrics", Usage: "serve metrics of all sandboxes for Prometheus",
		Description: "At http://ADDRESS/metrics, until it is ended. Each scrape asks all shims side by side: one that hangs or is dead is told as such. " +
			"Sums begin with this process, and count on when pods end. With a collector of OpenTelemetry it gets the spans of calls whose client is traced, as containerd's are. deploy has a dashboard, rules for alerts, a systemd unit and a DaemonSet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to serve on; there is no authentication", Value: metrics.DefaultAddress, Destination: &listen},
			&cli.IntFlag{Name: "max-pods", Usage: "how many pods have metrics of their own; the others are in the sums", Value: 250, Destination: &maxPods},
			&cli.IntFlag{Name: "overhead", Usage: "`MIB` of memory that the RuntimeClass adds to a pod, to compare with", Destination: &overheadMiB},
			&cli.StringFlag{Name: "otlp-endpoint", Usage: "base `URL` of an OpenTelemetry collector that gets spans with OTLP over HTTP (default: OTEL_EXPORTER_OTLP_ENDPOINT)", Destination: &endpoint},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := operator.None(c); err != nil {
				return err
			}
			if maxPods < 0 || overheadMiB < 0 {
				return sandboxes.UsageError("--max-pods %d, --overhead %d: want no less than 0", maxPods, overheadMiB)
			}
			collector := metrics.New(metrics.Options{
				StateDir: t.StateDir, Version: t.Version, Limit: t.Limit, MaxPods: maxPods, Overhead: int64(overheadMiB) << 20,
				Warn: func(err error) { fmt.Fprintf(t.Stderr, "ccv2 metrics: %v\n", err) },
			})
			exporter, err := t.exporter(endpoint)
			if err != nil {
				return err
			}
			more, done := startExporter(ctx, exporter)
			defer done()
			return metrics.Serve(ctx, listen, metrics.Handler(collector, more...), func(at net.Addr) {
				fmt.Fprintf(t.Stdout, "metrics are at http://%s/metrics\n", at)
			})
		},
	}
}

// exporter sends spans to a collector; nil when none is named.
func (t *tool) exporter(endpoint string) (*otlp.Exporter, error) {
	client, err := otlp.NewClient(endpoint)
	if client == nil || err != nil {
		return nil, err
	}
	return otlp.New(otlp.Options{
		StateDir: t.StateDir, Client: client, Resource: otlp.Host(), Every: otlp.DefaultEvery,
		Warn: func(err error) { fmt.Fprintf(t.Stderr, "ccv2 metrics: %v\n", err) },
	}), nil
}

// startExporter starts an exporter when there is one. done returns when it has sent what there is.
func startExporter(ctx context.Context, e *otlp.Exporter) (more []prometheus.Collector, done func()) {
	if e == nil {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx) })
	return []prometheus.Collector{metrics.Spans(e.Counts)}, func() {
		cancel()
		wg.Wait()
	}
}
