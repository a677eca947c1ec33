package otlp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/otlp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// collector gets what an exporter sends. TracesData is on the wire what the request of OTLP is.
type collector struct {
	*httptest.Server

	mu     sync.Mutex
	status int // of answers, when it is away
	got    []*trace.ResourceSpans
	header http.Header
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.header = r.Header
		body, err := io.ReadAll(r.Body)
		var data trace.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		if c.status != 0 {
			w.WriteHeader(c.status)
			return
		}
		c.got = append(c.got, data.GetResourceSpans()...)
	}))
	t.Cleanup(c.Close)
	return c
}

// names are those of the spans that have come, in their order.
func (c *collector) names() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.got {
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				all = append(all, span.GetName())
			}
		}
	}
	return all
}

// pod is a sandbox whose calls are traced.
type pod struct {
	t      *testing.T
	dir    store.Dir
	record store.State
	spans  *spans.Recorder
}

func newPod(t *testing.T, root, id string) *pod {
	t.Helper()
	p := &pod{t: t, record: store.State{Namespace: "k8s.io", ID: id}, spans: new(spans.Recorder)}
	p.dir = store.DirOf(root, "k8s.io", id)
	if err := p.dir.Create(p.record); err != nil {
		t.Fatal(err)
	}
	if err := p.spans.Open(p.dir, "v1"); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pod) call(name string) {
	parent, _ := spans.ParseParent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "")
	p.spans.Begin(parent, time.Now()).End(name, "")
}

// end ends the sandbox, before the calls that have ended it have.
func (p *pod) end() {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir.Path(), store.JournalFile), nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.spans.Close()
	if err := p.dir.Retire(p.record); err != nil {
		p.t.Fatal(err)
	}
	if err := os.RemoveAll(p.dir.Path()); err != nil {
		p.t.Fatal(err)
	}
}

// exporter makes one of a directory, and what it warns of.
func exporter(t *testing.T, root, url string) (*otlp.Exporter, *[]string) {
	t.Helper()
	client, err := otlp.NewClient(url)
	if err != nil {
		t.Fatal(err)
	}
	warnings := new([]string)
	return otlp.New(otlp.Options{
		StateDir: root, Client: client, Every: time.Millisecond, Resource: []*common.KeyValue{{Key: "host.name"}, {Key: "service.name"}},
		Warn: func(err error) { *warnings = append(*warnings, err.Error()) },
	}), warnings
}

// TestExport: each span is sent once, wherever its file is by then.
func TestExport(t *testing.T) {
	root, c := t.TempDir(), newCollector(t)
	a, b := newPod(t, root, "a"), newPod(t, root, "b")
	a.call("before the exporter")
	e, warnings := exporter(t, root, c.URL)
	a.call("a1")
	b.call("b1")
	e.Round(t.Context())
	a.call("a2")
	a.end()
	a.call("a3, at its end")
	e.Round(t.Context())
	a.call("a4, later")
	e.Round(t.Context())
	e.Round(t.Context())
	if diff := cmp.Diff([]string{"a1", "b1", "a2", "a3, at its end", "a4, later"}, c.names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := e.Counts(); n != (otlp.Counts{Sent: 5}) || len(*warnings) > 0 {
		t.Errorf("counts %+v, warnings %q", n, *warnings)
	}
	keys := map[string]string{}
	for _, attribute := range c.got[0].GetResource().GetAttributes() {
		keys[attribute.GetKey()] += attribute.GetValue().GetStringValue() + ";"
	}
	if keys["host.name"] != ";" || keys["service.name"] != "containerd-shim-ccv2;" || keys["service.instance.id"] != "k8s.io/a;" {
		t.Errorf("resource %q", keys)
	}
	span := c.got[0].GetScopeSpans()[0].GetSpans()[0]
	if fmt.Sprintf("%x %x", span.GetTraceId(), span.GetParentSpanId()) != "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7" || len(span.GetSpanId()) != 8 || span.GetKind() != trace.Span_SPAN_KIND_SERVER {
		t.Errorf("got %v", span)
	}
}

// TestMovedMeanwhile: what a round has not found, as it was being moved, is not sent again by the next one.
func TestMovedMeanwhile(t *testing.T) {
	root, c := t.TempDir(), newCollector(t)
	e, _ := exporter(t, root, c.URL)
	a := newPod(t, root, "a")
	a.call("a1")
	e.Round(t.Context())
	here, away := filepath.Join(a.dir.Path(), store.SpansFile), filepath.Join(t.TempDir(), "away")
	if err := os.Rename(here, away); err != nil {
		t.Fatal(err)
	}
	e.Round(t.Context())
	if err := os.Rename(away, here); err != nil {
		t.Fatal(err)
	}
	a.call("a2")
	e.Round(t.Context())
	if diff := cmp.Diff([]string{"a1", "a2"}, c.names()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// TestCollectorAway: what could not be sent is sent later, and what is lost is counted; it is said once.
func TestCollectorAway(t *testing.T) {
	root, c := t.TempDir(), newCollector(t)
	e, warnings := exporter(t, root, c.URL)
	p := newPod(t, root, "a")
	p.call("first")
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusUnauthorized} {
		c.mu.Lock()
		c.status = status
		c.mu.Unlock()
		e.Round(t.Context())
	}
	p.call("second")
	c.mu.Lock()
	c.status = 0
	c.mu.Unlock()
	e.Round(t.Context())
	if got := strings.Join(c.names(), " "); got != "first second" {
		t.Errorf("got %q", got)
	}
	if len(*warnings) != 2 || !strings.Contains((*warnings)[0], "are tried again every") || (*warnings)[1] != "spans are sent again" {
		t.Errorf("warnings %q", *warnings)
	}
	c.Close() // nobody answers
	p.call("third")
	e.Round(t.Context())
	if err := os.RemoveAll(p.dir.Path()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may have been moved meanwhile
		e.Round(t.Context())
	}
	if n := e.Counts(); n != (otlp.Counts{Sent: 2, Lost: 1, Failures: 3}) {
		t.Errorf("counts %+v", n)
	}
}

// TestDamaged: what is no line of spans is said once, and left out.
func TestDamaged(t *testing.T) {
	root, c := t.TempDir(), newCollector(t)
	e, warnings := exporter(t, root, c.URL)
	p := newPod(t, root, "a")
	path := filepath.Join(p.dir.Path(), store.SpansFile)
	bad := "nonsense\n{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"xx\"}]}]}]}\n"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	p.call("good")
	for range 2 {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(bad + `{"a line that is just being writ`); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		e.Round(t.Context())
	}
	if got := strings.Join(c.names(), " "); got != "good" || len(*warnings) != 1 || !strings.Contains((*warnings)[0], "decode spans") {
		t.Errorf("got %q, warnings %q", got, *warnings)
	}
}

// TestRun sends what there is at its end.
func TestRun(t *testing.T) {
	root, c := t.TempDir(), newCollector(t)
	e, _ := exporter(t, root, c.URL)
	p := newPod(t, root, "a")
	ctx, cancel := context.WithCancel(t.Context())
	p.call("first")
	cancel()
	e.Run(ctx)
	if got := strings.Join(c.names(), " "); got != "first" {
		t.Errorf("got %q", got)
	}
}

// TestNewClient: where spans go, and that what cannot be is refused.
func TestNewClient(t *testing.T) {
	c := newCollector(t)
	for _, tt := range []struct {
		name, endpoint, want string
		env                  map[string]string
		none                 bool
	}{
		{name: "none", none: true},
		{name: "disabled", none: true, env: map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": c.URL}},
		{name: "environment", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=some"}},
		{name: "for traces", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.URL + "/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		{name: "flag", endpoint: c.URL + "/", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		{name: "gRPC", want: "with HTTP alone", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		{name: "no URL", endpoint: "127.0.0.1:4318", want: "want the base URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			client, err := otlp.NewClient(tt.endpoint)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || (client == nil) != tt.none {
				t.Fatalf("got %v, %v", client, err)
			}
			if tt.none {
				return
			}
			if err := client.UploadTraces(t.Context(), []*trace.ResourceSpans{{}}); err != nil {
				t.Error(err)
			}
			if want := tt.env["OTEL_EXPORTER_OTLP_HEADERS"]; want != "" && c.header.Get("Authorization") != "some" {
				t.Errorf("header %v", c.header)
			}
		})
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=n1")
	if host := otlp.Host(); len(host) != 1 || host[0].GetKey() != "k8s.node.name" || host[0].GetValue().GetStringValue() != "n1" {
		t.Errorf("got %v", host)
	}
}
