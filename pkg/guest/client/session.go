package client

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// session is the [Session] of a guest that says itself how its processes exit.
type session struct{ frames *FrameSession }

// Stdout implements [Session].
func (s *session) Stdout() Stream { return s.frames.Stdout }

// Stderr implements [Session].
func (s *session) Stderr() Stream { return s.frames.Stderr }

// WriteStdin implements [Session].
func (s *session) WriteStdin(ctx context.Context, r io.Reader) error {
	return s.frames.WriteStdin(ctx, r)
}

// CloseStdin implements [Session].
func (s *session) CloseStdin() error { return s.frames.CloseStdin() }

// Done implements [Session].
func (s *session) Done() <-chan struct{} { return s.frames.Done() }

// Exit implements [Session].
func (s *session) Exit() (status uint8, err error) { return s.frames.Exit() }

// Close implements [Session].
func (s *session) Close() error { return s.frames.Close() }

// Resize implements [Session].
func (s *session) Resize(ctx context.Context, rows, columns int) error {
	return Classify(s.frames.Resize(ctx, rows, columns))
}

// errForeignSession says that a session did not come from OpenSession.
var errForeignSession = fmt.Errorf("the session is not of this guest: %w", errdefs.ErrInvalidArgument)

// framesOf returns the frames session under a session of OpenSession.
func framesOf(s Session) (*FrameSession, error) {
	switch s := s.(type) {
	case *session:
		return s.frames, nil
	case *compatSession:
		return s.frames, nil
	}
	return nil, errForeignSession
}

// compatSession corrects the exit status where the guest does not say the
// truth, or is not asked.
type compatSession struct {
	session
	// lostSignals is set when the guest reports 0 for a process that a signal
	// has ended.
	lostSignals bool

	mu       sync.Mutex // guards the fields below
	killed   bool       // SIGKILL was sent
	killedBy int        // signal that ended it before the guest knew of it
	started  bool       // the guest has the process
	rows     int        // size of the terminal to start with, 0 for none
	columns  int
}

// Resize implements [Session]. Of a process that is not started the guest does not
// know: the size is kept until then.
func (s *compatSession) Resize(ctx context.Context, rows, columns int) error {
	s.mu.Lock()
	s.rows, s.columns = rows, columns
	started := s.started
	s.mu.Unlock()
	if !started {
		return nil
	}
	return s.session.Resize(ctx, rows, columns)
}

// start says that the guest has the process, and sends the size that its terminal
// was given before.
func (s *compatSession) start(ctx context.Context) error {
	s.mu.Lock()
	s.started = true
	rows, columns := s.rows, s.columns
	s.mu.Unlock()
	if rows == 0 || columns == 0 {
		return nil
	}
	return s.session.Resize(ctx, rows, columns)
}

// signalBase is what shells add to the number of the signal that ended a process.
const signalBase = 128

// Exit returns the guest's status, or what it should have been.
func (s *compatSession) Exit() (status uint8, err error) {
	status, err = s.frames.Exit()
	if status != 0 || err != nil {
		return status, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.killedBy != 0:
		return signalBase + uint8(s.killedBy), nil
	case s.killed && s.lostSignals:
		return signalBase + uint8(unix.SIGKILL), nil
	}
	return 0, nil
}

func (s *compatSession) noteKilled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
}

func (s *compatSession) noteKilledBy(signal int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killedBy == 0 {
		s.killedBy = signal
	}
}
