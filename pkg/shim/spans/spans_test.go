package spans_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

const (
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	client = "00f067aa0ba902b7"
)

func parent(t *testing.T) spans.Parent {
	t.Helper()
	p, ok := spans.ParseParent("00-"+trace+"-"+client+"-01", "vendor=1")
	if !ok {
		t.Fatal("a good header is refused")
	}
	return p
}

// directory makes the directory of a sandbox.
func directory(t *testing.T) (store.Dir, store.State) {
	t.Helper()
	s := store.State{Namespace: "k8s.io", ID: "pod", Shim: store.Process{PID: 7}, About: store.About{PodNamespace: "default", Pod: "web", PodUID: "u"}}
	d := store.DirOf(t.TempDir(), s.Namespace, s.ID)
	if err := d.Create(s); err != nil {
		t.Fatal(err)
	}
	return d, s
}

// read are the spans of a file, and the resource of the last line.
func read(t *testing.T, path string) (all []spans.Span, of spans.Resource) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var traces spans.Traces
		if err := json.Unmarshal([]byte(line), &traces); err != nil {
			t.Fatalf("%v in %.200s", err, line)
		}
		for _, r := range traces.ResourceSpans {
			of = r.Resource
			for _, s := range r.ScopeSpans {
				all = append(all, s.Spans...)
			}
		}
	}
	return all, of
}

func TestParseParent(t *testing.T) {
	for header, want := range map[string]struct{ ok, sampled bool }{
		"00-" + trace + "-" + client + "-01":                   {true, true},
		"00-" + trace + "-" + client + "-00":                   {true, false},
		"00-" + trace + "-" + client + "-03":                   {true, true},
		"cc-" + trace + "-" + client + "-01-later":             {true, true},
		"00-" + trace + "-" + client + "-01-more":              {},
		"ff-" + trace + "-" + client + "-01":                   {},
		"00-" + strings.Repeat("0", 32) + "-" + client + "-01": {},
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":  {},
		"00-\x1b[2J-" + client + "-01":                         {},
		"":                                                     {},
	} {
		p, ok := spans.ParseParent(header, "")
		if ok != want.ok || p.Sampled != want.sampled || ok && p.Trace != trace {
			t.Errorf("%q: %+v, %v", header, p, ok)
		}
	}
}

// TestCall: a call and its parts are one line, with the client's span as their parent, also those from before there
// was a directory.
func TestCall(t *testing.T) {
	var r spans.Recorder
	begin := time.Now()
	c := r.Begin(parent(t), begin)
	c.Part("make directory", begin, nil)
	c.Part("guest startpod", begin, errors.New("no\x1b[2J"))
	c.End("svc/Create", "", spans.Text("container.id", "c"), spans.Number("rpc.ttrpc.status_code", 0))
	dir, _ := directory(t)
	if err := r.Open(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	r.Begin(parent(t), begin).End("svc/Start", "it has failed")
	all, resource := read(t, filepath.Join(dir.Path(), store.SpansFile))
	if len(all) != 4 {
		t.Fatalf("%d spans: %+v", len(all), all)
	}
	const sampled, local, remote = 0x1, 0x100, 0x300
	create := all[0].SpanID
	want := []spans.Span{
		{TraceID: trace, ParentID: client, TraceState: "vendor=1", Name: "svc/Create", Kind: spans.Server, Flags: sampled | remote, Attributes: []spans.Attribute{
			spans.Text("container.id", "c"), spans.Number("rpc.ttrpc.status_code", 0),
		}},
		{TraceID: trace, ParentID: create, TraceState: "vendor=1", Name: "make directory", Kind: spans.Internal, Flags: sampled | local},
		{TraceID: trace, ParentID: create, TraceState: "vendor=1", Name: "guest startpod", Kind: spans.Client, Flags: sampled | local, Status: spans.Status{Code: 2, Message: "no?[2J"}},
		{TraceID: trace, ParentID: client, TraceState: "vendor=1", Name: "svc/Start", Kind: spans.Server, Flags: sampled | remote, Status: spans.Status{Code: 2, Message: "it has failed"}},
	}
	if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(spans.Span{}, "SpanID", "Begin", "End")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ids := map[string]bool{}
	for _, s := range all {
		if ids[s.SpanID] = true; s.Begin != begin.UnixNano() || s.End < s.Begin || len(s.SpanID) != 16 {
			t.Errorf("%+v", s)
		}
	}
	if len(ids) != 4 {
		t.Errorf("ids %v", ids)
	}
	wantResource := spans.Resource{Attributes: []spans.Attribute{
		spans.Text("service.name", "containerd-shim-ccv2"), spans.Text("service.version", "v1"), spans.Text("service.instance.id", "k8s.io/pod"), spans.Number("process.pid", 7),
		spans.Text("k8s.namespace.name", "default"), spans.Text("k8s.pod.name", "web"), spans.Text("k8s.pod.uid", "u"),
	}}
	if diff := cmp.Diff(wantResource, resource); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
}

// TestNotTraced: without a client that is sampled there is no file.
func TestNotTraced(t *testing.T) {
	var r spans.Recorder
	dir, _ := directory(t)
	if err := r.Open(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	p, _ := spans.ParseParent("00-"+trace+"-"+client+"-00", "")
	for _, parent := range []spans.Parent{p, {}} {
		c := r.Begin(parent, time.Now())
		c.Part("a part", time.Now(), nil)
		c.End("svc/Start", "")
	}
	if files, err := filepath.Glob(filepath.Join(dir.Path(), store.SpansFile+"*")); err != nil || len(files) > 0 {
		t.Errorf("%q, %v", files, err)
	}
	if n := testing.AllocsPerRun(100, func() { r.Begin(p, time.Time{}).End("svc/Start", "") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBounds: neither the files nor the parts of a call grow beyond their bounds.
func TestBounds(t *testing.T) {
	var r spans.Recorder
	dir, _ := directory(t)
	if err := r.Open(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir.Path(), store.SpansFile)
	for i := range 2000 {
		c := r.Begin(parent(t), time.Now())
		for range i % 100 {
			c.Part("a part", time.Now(), nil)
		}
		c.End("svc/Start", strings.Repeat("long", 1000), spans.Number("number", int64(i)))
	}
	size := int64(0)
	for _, name := range []string{path, path + store.BeforeSuffix} {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
		if all, _ := read(t, name); len(all) < 50 {
			t.Errorf("%s has %d spans", name, len(all))
		}
	}
	if size > 256<<10 {
		t.Errorf("%d bytes", size)
	}
	all, _ := read(t, path)
	last := all[0]
	for _, s := range all {
		if s.Kind == spans.Server {
			last = s
		}
	}
	if n := *last.Attributes[0].Value.Number; n != 1999 {
		t.Errorf("the last call is %d", n)
	}
	if len(last.Status.Message) > 600 || len(last.Attributes) != 2 || last.Attributes[1].Key != "ccv2.parts.dropped" || *last.Attributes[1].Value.Number != 99-64 {
		t.Errorf("the last call: %+v", last)
	}
}

// TestEnd: what ends a sandbox is written to the file that was moved away with it.
func TestEnd(t *testing.T) {
	for _, before := range []int{0, 1} { // calls that were traced before
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			var r spans.Recorder
			dir, record := directory(t)
			if err := r.Open(dir, "v1"); err != nil {
				t.Fatal(err)
			}
			for range before {
				r.Begin(parent(t), time.Now()).End("svc/Create", "")
			}
			c := r.Begin(parent(t), time.Now())
			if err := os.WriteFile(filepath.Join(dir.Path(), store.JournalFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if err := dir.Retire(record); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir.Path()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			c.End("svc/Delete", "")
			c.Part("late", begin, nil)
			c.Part("later", time.Now(), nil)
			root := filepath.Dir(filepath.Dir(dir.Path()))
			paths, err := store.Spans(root)
			if err != nil || len(paths) != 1 {
				t.Fatalf("%q, %v", paths, err)
			}
			all, _ := read(t, paths[0])
			if len(all) != before+2 || all[before].Name != "svc/Delete" || all[before+1].Name != "late" {
				t.Errorf("%+v", all)
			}
		})
	}
}

// TestNoRoom: spans that cannot be written are counted, and the next one tells.
func TestNoRoom(t *testing.T) {
	var r spans.Recorder
	dir, _ := directory(t)
	if err := r.Open(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir.Path(), store.SpansFile)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	c := r.Begin(parent(t), time.Now())
	c.Part("a part", time.Now(), nil)
	c.End("svc/Create", "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.Begin(parent(t), time.Now()).End("svc/Start", "")
	all, _ := read(t, path)
	if len(all) != 1 || len(all[0].Attributes) != 1 || all[0].Attributes[0].Key != "ccv2.spans.dropped" || *all[0].Attributes[0].Value.Number != 2 {
		t.Errorf("%+v", all)
	}
}
