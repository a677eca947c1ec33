//go:build e2e

package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// span is one that a receiver has got, with what it is of.
type span struct {
	*trace.Span

	service, pod string
}

func (s span) id() string     { return hex.EncodeToString(s.GetSpanId()) }
func (s span) parent() string { return hex.EncodeToString(s.GetParentSpanId()) }

// receiver is a server of OTLP over HTTP.
type receiver struct {
	t *testing.T

	mu    sync.Mutex
	spans []span
	away  bool
}

// ServeHTTP takes spans. TracesData is on the wire what the request is.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			r.t.Error(err)
			return
		}
		body = z
	}
	text, err := io.ReadAll(body)
	var data trace.TracesData
	if err == nil {
		err = proto.Unmarshal(text, &data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil || q.URL.Path != "/v1/traces":
		r.t.Errorf("receive %s: %v", q.URL, err)
	case r.away:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		for _, of := range data.GetResourceSpans() {
			service, pod := textOf(of.GetResource().GetAttributes(), "service.name"), textOf(of.GetResource().GetAttributes(), "service.instance.id")
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					r.spans = append(r.spans, span{s, service, pod})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf") // of an empty answer
	}
}

func textOf(all []*common.KeyValue, key string) string {
	for _, a := range all {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// find are the spans of the shims that have a name and a container.
func (r *receiver) find(name, container string) (found []span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.service == "containerd-shim-ccv2" && s.GetName() == name && textOf(s.GetAttributes(), "container.id") == container {
			found = append(found, s)
		}
	}
	return found
}

// byID is the span of an id.
func (r *receiver) byID(id string) (span, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.spans, func(s span) bool { return s.id() == id })
	if i < 0 {
		return span{}, false
	}
	return r.spans[i], true
}

// parts are the names of the children of a span.
func (r *receiver) parts(of span) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.parent() == of.id() && bytes.Equal(s.GetTraceId(), of.GetTraceId()) && s.GetStartTimeUnixNano() >= of.GetStartTimeUnixNano() && s.GetEndTimeUnixNano() <= of.GetEndTimeUnixNano() {
			names = append(names, s.GetName())
		}
	}
	return names
}

// serve serves on a listener until the test ends, and returns the base URL.
func serve(t *testing.T, l net.Listener, h http.Handler) string {
	t.Helper()
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // until it is closed
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tracingExporter starts ccv2 metrics with a collector; end ends it in order.
func tracingExporter(t *testing.T, c *harness.Containerd, endpoint string) (end func()) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.Bin, "ccv2"), "metrics", "--listen", "127.0.0.1:0", "--otlp-endpoint", endpoint)
	cmd.Env, cmd.Stderr = c.Env(), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("ccv2 metrics: %v", err)
		}
	})
	t.Cleanup(end)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return end
}

// theCollector is the program of OpenTelemetry's collector; "" when the test is to do without.
func theCollector() string { return os.Getenv("CCV2_COLLECTOR") }

// throughCollector puts OpenTelemetry's collector before a receiver, and returns where it gets spans.
func throughCollector(t *testing.T, receiver string) string {
	t.Helper()
	l := listen(t)
	address := l.Addr().String()
	_ = l.Close()
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("receivers: {otlp: {protocols: {http: {endpoint: %q}}}}\nexporters: {otlphttp: {endpoint: %q}}\n"+
		"service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlphttp]}}}\n", address, receiver)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(theCollector(), "--config", config)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	})
	harness.Until(t, "answer of the collector", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return "http://" + address
}

// TestSpans: with a containerd that traces, what the shim does is in the same traces, with containerd's spans as
// parents, and the steps of the start are parts of it; also of a pod that has ended, and while the collector was away.
func TestSpans(t *testing.T) {
	r := &receiver{t: t}
	collector := serve(t, listen(t), r)
	var ofContainerd http.Handler = r
	if theCollector() != "" {
		collector = throughCollector(t, collector)
		u, err := url.Parse(collector)
		if err != nil {
			t.Fatal(err)
		}
		ofContainerd = httputil.NewSingleHostReverseProxy(u)
	}
	c := harness.Private(t)
	c.Watch(t)
	c.RestartWith(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+serve(t, c.Listen(t), ofContainerd), "OTEL_BSP_SCHEDULE_DELAY=100")
	end := tracingExporter(t, c, collector)
	task := c.Running(t, "traced", harness.Streams{}, []string{"sleep", "1000"})
	c.Output(t, task, "an-exec", "true")
	if theCollector() == "" { // which has a queue of its own
		r.mu.Lock()
		r.away = true
		r.mu.Unlock()
	}
	if status := c.KillTask(t, task); status != 137 {
		t.Errorf("status %d", status)
	}
	r.mu.Lock()
	r.away = false
	r.mu.Unlock()
	for op, parts := range map[string][]string{
		"Create": {"make directory", "start vm", "wait for guest", "plug share", "start pod", "guest startpod", "guest newcontainer"},
		"Start":  {"guest startcontainer"}, "Kill": nil, "Delete": nil, "Wait": nil, "Exec": nil,
	} {
		r.want(c.Namespace+"/traced", op, parts)
	}
	end()
	seen := map[string]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if seen[s.id()]++; seen[s.id()] > 1 && strings.HasPrefix(s.service, "containerd-shim") {
			t.Errorf("%s has come more than once", s.GetName())
		}
	}
}

// want wants the span of a call of a container, with containerd's as its parent, and its parts.
func (r *receiver) want(pod, op string, parts []string) {
	r.t.Helper()
	var found span
	harness.Until(r.t, "span of "+op+" with its parent", func() bool {
		for _, s := range r.find("containerd.task.v3.Task/"+op, "traced") {
			parent, ok := r.byID(s.parent())
			if ok && parent.service == "containerd" && bytes.Equal(parent.GetTraceId(), s.GetTraceId()) && (op != "Start" || textOf(s.GetAttributes(), "ccv2.exec.id") == "") {
				found = s
				return true
			}
		}
		return false
	})
	if found.pod != pod || found.GetStatus().GetCode() != trace.Status_STATUS_CODE_UNSET {
		r.t.Errorf("%s: %v of %s", op, found.Span, found.pod)
	}
	got := r.parts(found)
	r.t.Logf("%s has the parts %q", op, got)
	for _, part := range parts {
		if !slices.Contains(got, part) {
			r.t.Errorf("%s: no part %q in %q", op, part, got)
		}
	}
}
