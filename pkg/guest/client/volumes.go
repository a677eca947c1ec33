package client

import (
	"context"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// volumes are the abilities of a guest to be told about the share.
type volumes struct{ caller *caller }

// DropCaches has the guest forget files that nobody uses, with pages also their data.
func (v volumes) DropCaches(ctx context.Context, pages bool) error {
	return v.caller.mutate(ctx, "dropcaches", "", hyperstart.DropCachesRequest{Pages: pages})
}

// RefreshVolume has the guest bring its copy of a volume up to date, one of
// [hyperstart.LiveVolumes]: the volume's link leads to data now.
func (v volumes) RefreshVolume(ctx context.Context, volume, data string) error {
	return v.caller.mutate(ctx, "refreshvolume", "", hyperstart.RefreshVolumeRequest{Volume: volume, Data: data})
}
