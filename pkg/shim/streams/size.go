package streams

import (
	"context"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// Resize sets the size of the terminal in characters. Before Copy there is no
// terminal yet, which gets the last size then.
func (p *Streams) Resize(ctx context.Context, rows, columns uint16) error {
	p.mu.Lock()
	p.size = &specs.Box{Height: uint(rows), Width: uint(columns)}
	session := p.guest
	if !p.copying {
		session = nil
	}
	p.mu.Unlock()
	if session == nil {
		return nil
	}
	return session.Resize(ctx, int(rows), int(columns))
}

// Size is what the terminal was resized to last, nil for never. Before the start
// it is for the caller to start the process with.
func (p *Streams) Size() *specs.Box {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// sendSize sends the size that came before there was a terminal, also where it was
// started with that: not all guests heed it. One that comes meanwhile is not
// overtaken.
func (p *Streams) sendSize(ctx context.Context, session client.Session) {
	var sent *specs.Box
	for size := p.Size(); size != sent; size = p.Size() {
		if err := session.Resize(ctx, int(size.Height), int(size.Width)); err != nil {
			log.G(ctx).WithError(err).Debug("resize terminal")
		}
		sent = size
	}
}
