package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// TestSpans: a call whose client is traced has a span with the client's as its parent, and what is done for it its own.
func TestSpans(t *testing.T) {
	const trace, client = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	recorder := new(spans.Recorder)
	dir := store.DirOf(t.TempDir(), "k8s.io", "pod")
	if err := dir.Create(store.State{Namespace: "k8s.io", ID: "pod"}); err != nil {
		t.Fatal(err)
	}
	if err := recorder.Open(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	intercept := (&Service{spans: recorder}).UnaryServerInterceptor()
	for _, tt := range []struct {
		flags string
		err   error
	}{{"01", nil}, {"00", nil}, {"01", errdefs.ErrNotFound}, {"01", errors.New("broken")}} {
		ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{"traceparent": {"00-" + trace + "-" + client + "-" + tt.flags}, "tracestate": {"a=1", "b=2"}})
		fill := func(r any) error {
			if r, ok := r.(*taskapi.StartRequest); ok {
				r.ID, r.ExecID = "c", "e"
			}
			return nil
		}
		_, err := intercept(ctx, fill, &ttrpc.UnaryServerInfo{FullMethod: "/containerd.task.v3.Task/Start"}, func(ctx context.Context, unmarshal func(any) error) (any, error) {
			err := tt.err
			activity.Of(ctx).Part("guest execcmd", &err)()
			return nil, errors.Join(unmarshal(new(taskapi.StartRequest)), err)
		})
		if (err == nil) != (tt.err == nil) {
			t.Errorf("got %v", err)
		}
	}
	got := written(t, dir)
	var want []spans.Span
	for _, of := range []struct {
		code      int64
		own, part spans.Status
	}{
		{0, spans.Status{}, spans.Status{}},
		{5, spans.Status{}, spans.Status{Code: spans.StatusError, Message: "not found"}}, // which is no failure of the call
		{2, spans.Status{Code: spans.StatusError, Message: "broken"}, spans.Status{Code: spans.StatusError, Message: "broken"}},
	} {
		want = append(want, spans.Span{TraceID: trace, TraceState: "a=1,b=2", ParentID: client, Flags: 0x301, Name: "containerd.task.v3.Task/Start", Kind: spans.Server, Status: of.own, Attributes: []spans.Attribute{
			spans.Text("rpc.system", "ttrpc"), spans.Text("rpc.service", "containerd.task.v3.Task"), spans.Text("rpc.method", "Start"), spans.Number("rpc.ttrpc.status_code", of.code),
			spans.Text("container.id", "c"), spans.Text("ccv2.exec.id", "e"),
		}}, spans.Span{TraceID: trace, TraceState: "a=1,b=2", Flags: 0x101, Name: "guest execcmd", Kind: spans.Client, Status: of.part})
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(spans.Span{}, "SpanID", "Begin", "End"),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".ParentID" }, cmp.Comparer(func(a, b string) bool { return a == b || a == "" || b == "" }))); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	for i := 0; i < len(got); i += 2 {
		if got[i+1].ParentID != got[i].SpanID || time.Since(time.Unix(0, got[i].Begin)) > time.Hour {
			t.Errorf("%+v has the part %+v", got[i], got[i+1])
		}
	}
}

// written are the spans that are in a directory.
func written(t *testing.T, dir store.Dir) (all []spans.Span) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir.Path(), store.SpansFile))
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var traces spans.Traces
		if err := d.Decode(&traces); err != nil {
			t.Fatal(err)
		}
		all = append(all, traces.ResourceSpans[0].ScopeSpans[0].Spans...)
	}
	return all
}
