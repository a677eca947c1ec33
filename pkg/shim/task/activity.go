package task

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spans"
)

// withActivity gives all log entries about a call the same id: that of the trace which the
// client has sent, or else one of its own. With it come the parts of a call that is traced.
func withActivity(ctx context.Context, parent spans.Parent, call *spans.Call) context.Context {
	a := activity.Activity{ID: parent.Trace, Verbose: log.GetLevel() >= log.DebugLevel}
	if a.ID == "" {
		id := make([]byte, 8)
		_, _ = rand.Read(id) // never fails
		a.ID = hex.EncodeToString(id)
	}
	if call != nil {
		a.Watch = call.Part
	}
	return log.WithLogger(activity.With(ctx, a), log.G(ctx).WithField("activity", a.ID))
}

// parentOf is the span of the client, as the metadata of the request name it; without a trace when they do not.
func parentOf(ctx context.Context) spans.Parent {
	md, _ := ttrpc.GetMetadata(ctx)
	for _, value := range md["traceparent"] {
		if p, ok := spans.ParseParent(value, strings.Join(md["tracestate"], ",")); ok {
			return p
		}
	}
	return spans.Parent{}
}

// spanOf are the name and the attributes of the span of a call, as those of containerd's own have them.
func spanOf(method string, err error) (name string, attributes []spans.Attribute) {
	name = strings.TrimPrefix(method, "/")
	service, op, _ := strings.Cut(name, "/")
	return name, []spans.Attribute{
		spans.Text("rpc.system", "ttrpc"), spans.Text("rpc.service", service), spans.Text("rpc.method", op),
		spans.Number("rpc.ttrpc.status_code", int64(status.Code(err))),
	}
}

// about are attributes that say what a request is about.
func about(request any) (attributes []spans.Attribute) {
	if r, ok := request.(interface{ GetID() string }); ok && r.GetID() != "" {
		attributes = append(attributes, spans.Text("container.id", printable.Line(r.GetID(), printable.MaxName)))
	}
	if r, ok := request.(interface{ GetExecID() string }); ok && r.GetExecID() != "" {
		attributes = append(attributes, spans.Text("ccv2.exec.id", printable.Line(r.GetExecID(), printable.MaxName)))
	}
	return attributes
}
