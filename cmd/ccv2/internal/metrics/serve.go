package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// DefaultAddress is where metrics are served: for programs of the same host.
const DefaultAddress = "127.0.0.1:9756"

const (
	// maxScrapes is how many may wait for their answer at once.
	maxScrapes = 4
	// headerLimit bounds the time for the head of a request.
	headerLimit = 5 * time.Second
	// endLimit is how long scrapes have at the end.
	endLimit = 5 * time.Second
)

// Handler serves the metrics of a collector.
func Handler(c *Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

// Serve serves metrics on an address until ctx ends. ready is told where.
func Serve(ctx context.Context, address string, handler http.Handler, ready func(net.Addr)) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w; name another address with --listen", err)
	}
	ready(l.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerLimit}
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		_ = server.Shutdown(bounded) // what has not ended by then ends with the process
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
