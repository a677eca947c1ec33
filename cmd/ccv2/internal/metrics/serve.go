package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// DefaultAddress is where metrics are served: for programs of the same host.
const DefaultAddress = "127.0.0.1:9756"

const (
	// maxScrapes is how many may collect at once.
	maxScrapes = 4
	// maxClients is how many connections there may be; more wait to be let in.
	maxClients = 64
	// requestLimit bounds the time for a request to come.
	requestLimit = 5 * time.Second
	// answerLimit is how long a client may take to read its answer.
	answerLimit = time.Minute
	// idleLimit is how long a connection may stay without a request: longer than Prometheus waits between two.
	idleLimit = 3 * time.Minute
	// endLimit is how long scrapes have at the end.
	endLimit = 5 * time.Second
)

// Handler serves the metrics of collectors.
func Handler(c *Collector, more ...prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	registry.MustRegister(more...)
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		scrape.ServeHTTP(a, r)
		a.send() // by now another one may collect
	})
	return mux
}

// answer keeps an answer until it is whole, so that a client that does not read holds nothing but its connection.
type answer struct {
	http.ResponseWriter

	status int
	body   bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *answer) Write(text []byte) (int, error) { return a.body.Write(text) }

// send writes the answer.
func (a *answer) send() {
	// What collecting took is not the client's; where there is no such limit, in a test, there is nothing to set.
	_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(answerLimit))
	a.ResponseWriter.WriteHeader(a.status)
	_, _ = a.body.WriteTo(a.ResponseWriter) // who has gone needs no answer
}

// Serve serves metrics on an address until ctx ends. ready is told where.
func Serve(ctx context.Context, address string, handler http.Handler, ready func(net.Addr)) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w; name another address with --listen", err)
	}
	ready(l.Addr())
	server := &http.Server{Handler: handler, ReadTimeout: requestLimit, WriteTimeout: answerLimit, IdleTimeout: idleLimit}
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		_ = server.Shutdown(bounded) // what has not ended by then ends with the process
	})
	defer stop()
	if err := server.Serve(netutil.LimitListener(l, maxClients)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
