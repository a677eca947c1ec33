package proxy

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watch returns a context that ends when the client closes its connection,
// until stop is called. It is for commands that may take long: the connection's
// reader runs them, and so does not read meanwhile.
//
// A client that closes its sending side alone still waits for the answer. On
// Unix sockets the two can be told apart; other connections are not watched.
func (c *clientConn) watch(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	conn, ok := c.conn.(syscall.Conn)
	if !ok {
		return ctx, cancel
	}
	raw, err := conn.SyscallConn()
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
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // ends raw.Read
		<-done
		_ = c.conn.SetReadDeadline(time.Time{})
		cancel()
	}
}

// hungUp reports whether the other end of a socket was closed. It reads nothing.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP needs not be asked for
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
