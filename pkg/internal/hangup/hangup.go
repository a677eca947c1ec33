package hangup

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watch returns a context that ends when the other end of conn is closed, until stop is called.
// Nobody reads from conn meanwhile.
//
// A client that closes its sending side alone still waits for the answer. On Unix sockets
// the two can be told apart; other connections are not watched.
func Watch(ctx context.Context, conn net.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return ctx, cancel
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ctx, cancel
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if raw.Read(hungUp) == nil {
			cancel()
		}
	}()
	return ctx, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // ends raw.Read
		<-done
		_ = conn.SetReadDeadline(time.Time{})
		cancel()
	}
}

// Has reports whether the other end of conn was closed. A connection that is no socket has no other
// end that could be told.
func Has(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	if raw.Control(func(fd uintptr) { closed = hungUp(fd) }) != nil {
		return true
	}
	return closed
}

// hungUp reports whether the other end of a socket was closed. It reads nothing.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP needs not be asked for
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
