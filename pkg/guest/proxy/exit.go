package proxy

import "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"

// exit is how a session learns that its process has exited, and notifies
// the client. session.mu guards it.
type exit struct {
	session     *session
	eof         bool   // the zero-length message of the tty port has come
	async       *uint8 // exit status from the control port (hyperhq)
	known       bool   // the exit status has come
	undelivered *uint8 // the status while it is not delivered
}

// exitedAsync records the exit status that came on the control port, when it is
// this session's process that has exited.
func (s *session) exitedAsync(container, id string, status uint8) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process.container != container || s.process.id != id || s.ended || s.exit.async != nil {
		return false
	}
	s.exit.async = &status
	s.exit.trySet()
	return true
}

// receiveEOF records the end of the output. The caller holds session.mu.
func (e *exit) receiveEOF() {
	e.eof = true
	e.trySet()
}

// trySet makes the exit known once both halves have come: the order between the
// control port and the tty port is not defined. The caller holds session.mu.
func (e *exit) trySet() {
	if e.eof && e.async != nil && !e.known {
		e.set(*e.async)
	}
}

// set records the exit status and drops stdin. The caller holds session.mu.
func (e *exit) set(status uint8) {
	e.known, e.undelivered = true, &status
	e.session.stdin.clear()
	e.session.cond.Broadcast()
}

// write writes the exit status. On error it is still to be written.
func (e *exit) write(client *clientConn) error {
	s := e.session
	s.mu.Lock()
	status := e.undelivered
	e.undelivered = nil
	s.mu.Unlock()
	err := client.write(func(w *proxyproto.Writer) error { return w.WriteProcessExited(*status) })
	if err != nil {
		s.mu.Lock()
		e.undelivered = status
		s.mu.Unlock()
	}
	return err
}
