package proxy

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Version1 serves clients of version 1 of the protocol, which are other clients' of this
// server for what they ask.
type Version1 interface {
	// Serve serves one connection until it ends. The caller closes it.
	Serve(s *Server, conn net.Conn) error
	// Close joins what is left when the server has ended.
	Close()
}

// ServeAny is Serve for a client of either version: the first bytes tell.
func (s *Server) ServeAny(conn net.Conn) error {
	if s.opts.Version1 == nil {
		return s.Serve(conn)
	}
	if err := s.enter(conn); err != nil {
		return err
	}
	if !speaksVersion1(conn) {
		return s.Serve(conn)
	}
	defer s.leave(conn)
	return s.opts.Version1.Serve(s, conn)
}

// versionLen is how many bytes of a connection tell the version: a frame of version 2 begins with
// that number in 16 bits, a message of version 1 with a length in 32, which is small in the first one.
const versionLen = 2

// speaksVersion1 waits for the first bytes of a connection, and leaves them there. One that
// is not a socket speaks version 2.
func speaksVersion1(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var first [versionLen]byte
	n := 0
	err = raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN) && (n != 1 || willSendNothing(fd))
	})
	return err == nil && n == versionLen && first == [versionLen]byte{}
}

// willSendNothing reports whether the other end of a socket was closed, at least for sending.
func willSendNothing(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}
