package proxyv1

import (
	"errors"
	"os"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hangup"
)

// leaveGrace is how long what a client has sent before it closed its descriptor waits for a process that
// does not read: as long as in version 2 before DisconnectShim.
const leaveGrace = 30 * time.Second

// input writes to a stream's session, which takes no more while its process does not read. Meanwhile it
// looks whether the client is still there. The stream's turn guards it.
type input struct {
	stream *stream
	left   time.Time // when the client was found gone
}

// Write implements [io.Writer].
func (i *input) Write(frame []byte) (written int, err error) {
	s := i.stream
	for {
		if err := s.frames.conn.SetWriteDeadline(time.Now().Add(lookEvery)); err != nil {
			return written, err
		}
		n, err := s.frames.conn.Write(frame[written:])
		written += n
		if written == len(frame) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		switch {
		case !hangup.Has(s.conn):
		case i.left.IsZero():
			i.left = time.Now()
		case time.Since(i.left) >= s.grace: // the session reads on, and drops it
			s.server.Free(s.token)
		}
	}
}
