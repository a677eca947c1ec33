package task

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
)

// traceparent is the header of W3C Trace Context, whose second part is the id of the trace.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}`)

// withActivity gives all log entries about a call the same id: that of the trace which the
// client has sent, or else one of its own.
func withActivity(ctx context.Context) context.Context {
	id := activityOf(ctx)
	ctx = activity.With(ctx, activity.Activity{ID: id, Verbose: log.GetLevel() >= log.DebugLevel})
	return log.WithLogger(ctx, log.G(ctx).WithField("activity", id))
}

func activityOf(ctx context.Context) string {
	if md, ok := ttrpc.GetMetadata(ctx); ok {
		for _, value := range md["traceparent"] {
			if parts := traceparent.FindStringSubmatch(value); parts != nil {
				return parts[1]
			}
		}
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}
