package proxy

import "github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"

// Names of the frames client from before it had a package of its own. They go
// as soon as nobody uses them.
type (
	// Client is [client.Frames].
	Client = client.Frames
	// Session is [client.FrameSession].
	Session = client.FrameSession
	// Output is [client.Output].
	Output = client.Output
)

// NewClient is [client.NewFrames].
var NewClient = client.NewFrames
