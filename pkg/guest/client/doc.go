// Package client is the host's side of a conversation with a guest: [Frames]
// speaks the proxy's frames.
package client
