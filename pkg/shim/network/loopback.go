package network

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/thread"
)

// Loopback takes the TCP connections that processes on the host make to the
// loopback of a namespace, to any port. The local address of an accepted
// connection is the one that was asked for.
//
// A program of the kernel's (sk_lookup) brings them to one listener. It is held
// by a descriptor of this process, and nothing is to be cleaned up after it.
type Loopback struct {
	*net.TCPListener

	link int
}

// ListenLoopback takes the connections to 127.0.0.0/8. Kernels from 5.9 on can.
func (n *Namespace) ListenLoopback() (*Loopback, error) {
	l := &Loopback{link: -1}
	err := thread.Do(n.file, func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // such sockets cannot be in a map
		listener, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		if err == nil {
			l.TCPListener = listener.(*net.TCPListener) //nolint:forcetypeassert // "tcp4"
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the loopback: %w", err)
	}
	if err := l.takeAll(n); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the loopback: %w", err), l.Close())
	}
	return l, nil
}

// takeAll attaches the program to the namespace.
func (l *Loopback) takeAll(n *Namespace) error {
	sockets, err := newSockMap()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(sockets) }() // the program holds it
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = setSockMap(sockets, int(fd)) }); err != nil {
		return err
	}
	if setErr != nil {
		return setErr
	}
	program, err := loadSockLookup(toLoopback(sockets))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(program) }() // the link holds it
	if raw, err = n.file.SyscallConn(); err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) { l.link, setErr = attachSockLookup(program, int(fd)) }); err != nil {
		return err
	}
	return setErr
}

// Close ends it. Connections that were accepted stay.
func (l *Loopback) Close() error {
	err := l.TCPListener.Close()
	if l.link >= 0 {
		err = errors.Join(err, unix.Close(l.link))
		l.link = -1
	}
	return err
}
