package streams

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// pipes are the agent's ends of a process's standard streams, and until the
// process is started also the other ends.
type pipes struct {
	terminal bool
	in       *os.File // write end of stdin; the terminal's master when terminal
	out      *os.File // read end of stdout; the terminal's master when terminal
	err      *os.File // read end of stderr; nil when terminal

	child   [3]*os.File    // given to the OCI runtime
	console *consoleSocket // receives the master; nil unless terminal
}

// newPipes makes three pipes, or a console socket at the path for a terminal.
func newPipes(terminal bool, socket string) (*pipes, error) {
	s := &pipes{terminal: terminal}
	var err error
	if terminal {
		s.console, err = listenConsole(socket)
	} else {
		err = s.open()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make standard streams: %w", err)
	}
	return s, nil
}

func (s *pipes) open() error {
	var err error
	if s.child[0], s.in, err = os.Pipe(); err != nil {
		return err
	}
	if s.out, s.child[1], err = os.Pipe(); err != nil {
		return err
	}
	s.err, s.child[2], err = os.Pipe()
	return err
}

// Set implements [runc.IO].
func (s *pipes) Set(cmd *exec.Cmd) {
	if s.terminal {
		return
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.child[0], s.child[1], s.child[2]
}

// CloseAfterStart implements [runc.StartCloser]: with the child's ends closed
// here, the streams end when the container has closed them.
func (s *pipes) CloseAfterStart() error {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
	return nil
}

// Stdin implements [runc.IO]; go-runc does not use it.
func (s *pipes) Stdin() io.WriteCloser { return s.in }

// Stdout implements [runc.IO]; go-runc does not use it.
func (s *pipes) Stdout() io.ReadCloser { return s.out }

// Stderr implements [runc.IO]; go-runc does not use it.
func (s *pipes) Stderr() io.ReadCloser { return s.err }

// Close implements [runc.IO].
func (s *pipes) Close() error {
	s.close()
	return nil
}

// attach takes the master of the terminal after the OCI runtime has sent it.
func (s *pipes) attach() error {
	if s.console == nil {
		return nil
	}
	master, err := s.console.receive()
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	s.in, s.out = master, master
	return nil
}

func (s *pipes) resize(rows, columns uint16) error {
	if !s.terminal || s.out == nil {
		return nil
	}
	raw, err := s.out.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	return errors.Join(cerr, err)
}

func (s *pipes) close() {
	_ = s.CloseAfterStart()
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close() // the master is closed twice, which is harmless
		}
	}
	if s.console != nil {
		s.console.close()
	}
}

// consoleSocket receives the master of a terminal from the OCI runtime.
type consoleSocket struct {
	path     string
	listener *net.UnixListener
}

func listenConsole(path string) (*consoleSocket, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &consoleSocket{path: path, listener: l}, nil
}

// Path implements [runc.ConsoleSocket].
func (c *consoleSocket) Path() string { return c.path }

// consoleDeadline bounds the wait for the terminal. The OCI runtime has ended
// by then, so what it sent is there already.
const consoleDeadline = 2 * time.Second

func (c *consoleSocket) receive() (*os.File, error) {
	deadline := time.Now().Add(consoleDeadline)
	if err := c.listener.SetDeadline(deadline); err != nil {
		return nil, err
	}
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// The name of the terminal comes as data beside the one descriptor.
	data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("got %d control messages, want 1", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

func (c *consoleSocket) close() {
	c.listener.Close() // removes the socket as well
}

var (
	_ runc.IO            = (*pipes)(nil)
	_ runc.StartCloser   = (*pipes)(nil)
	_ runc.ConsoleSocket = (*consoleSocket)(nil)
)
