package task

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
)

// TestActivity: all entries about one call have the same id, which is that of the client's
// trace when there is one.
func TestActivity(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, tt := range map[string]struct{ traceparent, want string }{
		"of a trace": {"00-" + trace + "-00f067aa0ba902b7-01", trace},
		"none":       {"", ""},
		"nonsense":   {"00-\x1b[2J-00f067aa0ba902b7-01", ""},
	} {
		ctx := context.Background()
		if tt.traceparent != "" {
			ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"traceparent": {tt.traceparent}})
		}
		var inside any
		_, err := (&Service{}).UnaryServerInterceptor()(ctx, nil, &ttrpc.UnaryServerInfo{FullMethod: "/svc/Kill"},
			func(ctx context.Context, _ func(any) error) (any, error) {
				inside = log.G(ctx).Data["activity"]
				return nil, errdefs.ErrNotFound
			})
		id, _ := inside.(string)
		if err == nil || tt.want != "" && id != tt.want || len(id) < 16 || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }) {
			t.Errorf("%s: id %q, %v", name, id, err)
		}
	}
}
