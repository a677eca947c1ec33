package proxy

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// unixPair returns two connected Unix sockets, which buffer as in production.
func unixPair() (a, b net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			return nil, nil, err
		}
		_ = f.Close() // FileConn has its own
	}
	return conns[0], conns[1], nil
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	a, b, err := unixPair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}
