package operate

import (
	"context"
	"fmt"
	"net"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/metrics"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
)

func metricsCommand(t *operator) *cli.Command {
	var listen string
	var maxPods, overheadMiB int
	return &cli.Command{
		Name: "metrics", Usage: "serve metrics of all sandboxes for Prometheus",
		Description: "At http://ADDRESS/metrics, until it is ended. Each scrape asks all shims side by side: one that hangs or is dead is told as such. " +
			"Sums begin with this process, and count on when pods end. deploy has a dashboard, rules for alerts, a systemd unit and a DaemonSet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to serve on; there is no authentication", Value: metrics.DefaultAddress, Destination: &listen},
			&cli.IntFlag{Name: "max-pods", Usage: "how many pods have metrics of their own; the others are in the sums", Value: 250, Destination: &maxPods},
			&cli.IntFlag{Name: "overhead", Usage: "`MIB` of memory that the RuntimeClass adds to a pod, to compare with", Destination: &overheadMiB},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := none(c); err != nil {
				return err
			}
			if maxPods < 0 || overheadMiB < 0 {
				return sandboxes.UsageError("--max-pods %d, --overhead %d: want no less than 0", maxPods, overheadMiB)
			}
			collector := metrics.New(metrics.Options{
				StateDir: t.stateDir, Version: t.Version, Limit: t.limit, MaxPods: maxPods, Overhead: int64(overheadMiB) << 20,
				Warn: func(err error) { fmt.Fprintf(t.Stderr, "ccv2 metrics: %v\n", err) },
			})
			return metrics.Serve(ctx, listen, metrics.Handler(collector), func(at net.Addr) {
				fmt.Fprintf(t.Stdout, "metrics are at http://%s/metrics\n", at)
			})
		},
	}
}
