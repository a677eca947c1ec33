package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/metrics"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// shim answers with what was counted.
type shim struct {
	debugapi.DebugService

	counters atomic.Pointer[debugapi.Counters]
}

func (s *shim) Counters(context.Context, *debugapi.CountersRequest) (*debugapi.Document, error) {
	text, err := json.Marshal(s.counters.Load())
	return &debugapi.Document{Json: text}, err
}

// host is a directory of sandboxes.
type host struct {
	t   *testing.T
	dir string
}

func newHost(t *testing.T) host {
	t.Helper()
	dir, err := os.MkdirTemp("", "ccv2-m-") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return host{t, dir}
}

func (h host) collector(maxPods int) *metrics.Collector {
	return metrics.New(metrics.Options{
		StateDir: h.dir, Version: "v1", Limit: time.Second, MaxPods: maxPods, Overhead: 448 << 20, Warn: func(err error) { h.t.Error(err) },
	})
}

// sandbox makes a record, whose shim is this process, or dead.
func (h host) sandbox(id string, alive bool) store.Dir {
	h.t.Helper()
	s := store.State{
		Namespace: "k8s.io", ID: id, Created: time.Unix(1700000000, 0), Shim: store.Process{Name: "shim", PID: 4_000_000},
		About: store.About{PodNamespace: "default", Pod: "pod-" + id, CPUs: 2, MemoryMiB: 512, Accelerator: "tcg", Source: "template"},
	}
	if alive {
		s.Shim = store.Process{Name: "shim", PID: os.Getpid(), Start: startOf(h.t)}
	}
	d := store.DirOf(h.dir, "k8s.io", id)
	if err := d.Create(s); err != nil {
		h.t.Fatal(err)
	}
	return d
}

// startOf is when this process was started, as the kernel counts.
func startOf(t *testing.T) (start uint64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	const field = 22 - 3
	if _, err := fmt.Sscan(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[field], &start); err != nil {
		t.Fatal(err)
	}
	return start
}

func (h host) listen(d store.Dir) net.Listener {
	h.t.Helper()
	l, err := net.Listen("unix", filepath.Join(d.Path(), debugapi.Socket))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (h host) serve(d store.Dir, c debugapi.Counters) *shim {
	h.t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		h.t.Fatal(err)
	}
	s := new(shim)
	s.counters.Store(&c)
	debugapi.RegisterDebugService(server, s)
	l := h.listen(d)
	go func() { _ = server.Serve(context.Background(), l) }()
	h.t.Cleanup(func() { _ = server.Close() })
	return s
}

// counted is what a shim has counted that has done some of everything.
func counted(id string) debugapi.Counters {
	begin := time.Unix(1700000000, 0)
	return debugapi.Counters{
		Namespace: "k8s.io", ID: id, State: "ready", Source: "template",
		Phases:    []debugapi.Phase{{Name: "start vm", Begin: begin, Nanoseconds: 2e8}, {Name: "wait for guest", Begin: begin.Add(2e8), Nanoseconds: 3e8, Error: "no"}},
		Heartbeat: time.Unix(1700000100, 0), Guest: &debugapi.Guest{MemTotal: 400 << 20, MemAvailable: 300 << 20, AgentRSS: 8 << 20},
		Events: map[string]uint64{"oom": 1, "start": 2},
		Wire: []debugapi.WireCount{
			{Layer: "tty", Kind: "data", ToHost: true, Messages: 3, Bytes: 300},
			{Layer: "tty", Kind: "data", Messages: 1, Bytes: 20},
			{Layer: "ctl", Kind: "EXECCMD", Messages: 2, Bytes: 50},
		},
		Calls: []debugapi.Operation{{Name: "StartExec", Bounds: []int64{1e7, 1e8}, Took: []uint64{1, 2, 1}, Total: 1e9, Failed: map[string]uint64{"not_found": 1}}},
	}
}

// scrape returns the samples by their names and labels.
func scrape(t *testing.T, c prometheus.Collector) map[string]string {
	t.Helper()
	server := httptest.NewServer(metrics.Handler(c.(*metrics.Collector)))
	defer server.Close()
	r, err := http.Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", r.StatusCode, err, text)
	}
	samples := make(map[string]string)
	for l := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(l), "} "); ok && !strings.HasPrefix(l, "#") {
			samples[name+"}"] = value
		} else if name, value, ok := strings.Cut(strings.TrimSpace(l), " "); ok && !strings.HasPrefix(l, "#") {
			samples[name] = value
		}
	}
	return samples
}

func want(t *testing.T, samples map[string]string, wanted map[string]string) {
	t.Helper()
	for name, value := range wanted {
		if samples[name] != value {
			t.Errorf("%s is %q, want %q", name, samples[name], value)
		}
	}
}

const web = `{namespace="default",pod="pod-web",sandbox="web"`

// TestCollect: a pod that answers, one whose shim hangs, one that is dead, and a record that cannot be read.
func TestCollect(t *testing.T) {
	h := newHost(t)
	c := h.collector(10)
	want(t, scrape(t, c), map[string]string{`ccv2_sandboxes{state="ready"}`: "0", `ccv2_sandbox_failures_total{cause="qemu"}`: "0"})
	h.serve(h.sandbox("web", true), counted("web"))
	h.listen(h.sandbox("hangs", true))
	h.sandbox("dead", false)
	if err := os.WriteFile(filepath.Join(h.sandbox("odd", false).Path(), "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	samples := scrape(t, c)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("a scrape took %s", took)
	}
	want(t, samples, map[string]string{
		`ccv2_sandboxes{state="ready"}`: "1", `ccv2_sandboxes{state="hung"}`: "1", `ccv2_sandboxes{state="dead"}`: "1", `ccv2_sandboxes{state="unknown"}`: "1",
		`ccv2_pod_up` + web + `}`: "1",
		`ccv2_pod_up{namespace="default",pod="pod-hangs",sandbox="hangs"}`:        "0",
		`ccv2_pod_up{namespace="default",pod="pod-dead",sandbox="dead"}`:          "0",
		`ccv2_pod_healthy` + web + `}`:                                            "1",
		`ccv2_pod_start_duration_seconds` + web + `}`:                             "0.5",
		`ccv2_pod_stream_bytes_total` + web + `,stream="output"}`:                 "300",
		`ccv2_pod_oom_events_total` + web + `}`:                                   "1",
		`ccv2_pod_heartbeat_timestamp_seconds` + web + `}`:                        "1.7000001e+09",
		`ccv2_runtimeclass_overhead_memory_bytes`:                                 "4.69762048e+08",
		`ccv2_sandbox_starts_total{result="success",source="template"}`:           "1",
		`ccv2_sandbox_start_duration_seconds_bucket{source="template",le="0.5"}`:  "1",
		`ccv2_sandbox_start_duration_seconds_bucket{source="template",le="0.25"}`: "0",
		`ccv2_sandbox_start_phase_failures_total{phase="wait for guest"}`:         "1",
		`ccv2_task_call_duration_seconds_bucket{operation="StartExec",le="0.1"}`:  "3",
		`ccv2_task_call_duration_seconds_count{operation="StartExec"}`:            "4",
		`ccv2_task_call_failures_total{code="not_found",operation="StartExec"}`:   "1",
	})
	if problems, err := testutil.GatherAndLint(registry(c)); err != nil || len(problems) > 0 {
		t.Errorf("names: %v, %v", problems, err)
	}
}

func registry(c prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	return r
}

// retire ends a sandbox with a journal, as its shim does.
func (h host) retire(d store.Dir, id string, at *debugapi.Counters) {
	h.t.Helper()
	var text []byte
	for _, j := range []debugapi.Journal{{Sandbox: &debugapi.JournalSandbox{Namespace: "k8s.io", ID: id}}, {Counters: at}} {
		b, err := json.Marshal(j)
		if err != nil {
			h.t.Fatal(err)
		}
		text = append(append(text, b...), '\n')
	}
	if err := os.WriteFile(filepath.Join(d.Path(), store.JournalFile), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := d.Retire(store.State{Namespace: "k8s.io", ID: id}); err != nil {
		h.t.Fatal(err)
	}
	if err := os.RemoveAll(d.Path()); err != nil {
		h.t.Fatal(err)
	}
}

// TestSums go on when pods end, also those that have come and gone between two scrapes, and nothing counts twice.
func TestSums(t *testing.T) {
	h := newHost(t)
	before := counted("before")
	h.retire(h.sandbox("before", false), "before", &before) // it is not for this process
	c := h.collector(10)
	d := h.sandbox("web", true)
	s := h.serve(d, counted("web"))
	for range 2 {
		want(t, scrape(t, c), map[string]string{`ccv2_sandbox_events_total{kind="start"}`: "2", `ccv2_task_call_duration_seconds_count{operation="StartExec"}`: "4"})
	}
	now := counted("web")
	now.Events["start"], now.Calls[0].Took[0], now.Failure = 5, 11, "qemu"
	s.counters.Store(&now)
	want(t, scrape(t, c), map[string]string{`ccv2_sandbox_events_total{kind="start"}`: "5", `ccv2_sandbox_failures_total{cause="qemu"}`: "1"})
	now.Events["start"] = 6
	h.retire(d, "web", &now)
	short := counted("short")
	h.retire(h.sandbox("short", false), "short", &short)
	killed := h.sandbox("killed", false)
	h.retire(killed, "killed", nil)
	for range 2 {
		samples := scrape(t, c)
		want(t, samples, map[string]string{
			`ccv2_sandbox_events_total{kind="start"}`: "8", `ccv2_task_call_duration_seconds_count{operation="StartExec"}`: "18",
			`ccv2_sandbox_failures_total{cause="qemu"}`: "1", `ccv2_sandbox_failures_total{cause="shim"}`: "1",
			`ccv2_sandbox_starts_total{result="success",source="template"}`: "2", `ccv2_guest_messages_total{direction="to_host",kind="data",layer="tty"}`: "6",
		})
		if _, there := samples[`ccv2_pod_up`+web+`}`]; there {
			t.Error("a pod that has ended is still told about")
		}
	}
}

// TestEndAtOnce: of two sandboxes that end at once the journal with the earlier name may come later; both count, once.
func TestEndAtOnce(t *testing.T) {
	h := newHost(t)
	c := h.collector(10)
	for i, sum := range []string{"2", "4", "4"} {
		if id := fmt.Sprint("pod", i); i < 2 {
			at := counted(id)
			h.retire(h.sandbox(id, false), id, &at)
		}
		if i == 1 {
			paths, err := store.Ended(h.dir)
			if err != nil || len(paths) != 2 {
				t.Fatalf("%q, %v", paths, err)
			}
			if err := os.Rename(paths[1], filepath.Join(filepath.Dir(paths[1]), fmt.Sprintf("%020d-pod1.jsonl", 1))); err != nil {
				t.Fatal(err)
			}
		}
		want(t, scrape(t, c), map[string]string{`ccv2_sandbox_events_total{kind="start"}`: sum})
	}
}

// TestZeros: the first failure of a cause that the manual names is an increase.
func TestZeros(t *testing.T) {
	manual, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, found := strings.Cut(string(manual), "VMs that have ended by `cause`: ")
	row, _, ended := strings.Cut(row, " |\n")
	if !found || !ended {
		t.Fatal("the manual names no causes")
	}
	zeros := map[string]string{`ccv2_sandbox_failures_total{cause="shim"}`: "0"}
	for _, word := range regexp.MustCompile("(?:^|, )`([a-z_]+)`").FindAllStringSubmatch(row, -1) {
		zeros[fmt.Sprintf("ccv2_sandbox_failures_total{cause=%q}", word[1])] = "0"
	}
	h := newHost(t)
	if h.serve(h.sandbox("web", true), counted("web")); len(zeros) < 8 {
		t.Errorf("the manual names %d causes", len(zeros))
	}
	zeros[`ccv2_sandbox_start_phase_failures_total{phase="start vm"}`] = "0"
	want(t, scrape(t, h.collector(1)), zeros)
}

// TestManyPods: there are no more series than for so many pods, and shims that hang do not add up.
func TestManyPods(t *testing.T) {
	h := newHost(t)
	for i := range 100 {
		h.listen(h.sandbox(fmt.Sprintf("hangs%03d", i), true))
	}
	begin := time.Now()
	samples := scrape(t, h.collector(7))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a scrape took %s", took)
	}
	pods := 0
	for name := range samples {
		if strings.HasPrefix(name, "ccv2_pod_up{") {
			pods++
		}
	}
	if pods != 7 || samples["ccv2_pods_omitted"] != "93" || samples[`ccv2_sandboxes{state="hung"}`] != "100" {
		t.Errorf("%d pods, %s omitted, %s hang", pods, samples["ccv2_pods_omitted"], samples[`ccv2_sandboxes{state="hung"}`])
	}
}

// TestNotAsked: of a shim that a scrape had no time for it is not said that it hangs.
func TestNotAsked(t *testing.T) {
	h := newHost(t)
	for i := range 200 {
		h.listen(h.sandbox(fmt.Sprintf("hangs%03d", i), true))
	}
	samples := scrape(t, h.collector(200))
	hung, err := strconv.Atoi(samples[`ccv2_sandboxes{state="hung"}`])
	want(t, samples, map[string]string{`ccv2_sandboxes{state="unknown"}`: strconv.Itoa(200 - hung)})
	up := 0
	for name := range samples {
		if strings.HasPrefix(name, "ccv2_pod_up{") {
			up++
		}
	}
	if err != nil || hung < 64 || hung > 128 || up != hung { // twice as many as are asked at once, or fewer on a slow host
		t.Errorf("%d hang, %v; of %d pods it is said whether they are up", hung, err, up)
	}
}

// TestIDOfManyBytes: a character is not cut in the middle.
func TestIDOfManyBytes(t *testing.T) {
	h := newHost(t)
	h.sandbox("xy"+strings.Repeat("\u00e4", 10), false)
	const name = `ccv2_pod_up{namespace="default",pod="pod-xy\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4",sandbox="xy\u00e4\u00e4\u00e4\u00e4\u00e4"}`
	want(t, scrape(t, h.collector(1)), map[string]string{strings.ReplaceAll(name, `\u00e4`, "\u00e4"): "0"})
}

// TestDeployed: dashboard and rules are about metrics that there are.
func TestDeployed(t *testing.T) {
	h := newHost(t)
	h.serve(h.sandbox("web", true), counted("web"))
	families, err := registry(h.collector(10)).Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, f := range families {
		for _, suffix := range []string{"", "_bucket", "_count", "_sum"} {
			there[f.GetName()+suffix] = true
		}
	}
	there["ccv2_pod_virtiofs_bytes_total"], there["ccv2_pod_virtiofs_operations_total"] = true, true // this host has no virtiofsd
	for _, file := range []string{"dashboard.json", "rules.yaml"} {
		text, err := os.ReadFile("../../../../deploy/metrics/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\bccv2_[a-z_]+`).FindAllString(string(text), -1)
		for _, name := range names {
			if !there[name] {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
		if len(names) < 8 {
			t.Errorf("%s asks for %d metrics", file, len(names))
		}
	}
}
