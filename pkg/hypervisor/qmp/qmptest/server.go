package qmptest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
)

// Greeting is what QEMU 7.2 says first.
const Greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}`

// patience bounds every step of the server, so that a test fails instead of
// hanging.
const patience = 10 * time.Second

// Server is QEMU's end of a connection. The test scripts it step by step; a
// step that does not happen fails the test. It is not safe for concurrent use.
type Server struct {
	t    testing.TB
	conn *net.UnixConn
	read *bufio.Reader
	file *os.File // received with the last line, may be nil
}

// Command is one received command.
type Command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        uint64          `json:"id"`
	// File was passed with the command, or is nil. The test closes it.
	File *os.File `json:"-"`
}

// Pipe returns a server and the client's end of its connection, a Unix stream
// socket. The server's end is closed when the test ends.
func Pipe(t testing.TB) (*Server, net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	server, client := conn(t, fds[0]), conn(t, fds[1])
	socket, ok := server.(*net.UnixConn)
	if !ok {
		t.Fatalf("the server's end is a %T", server)
	}
	s := &Server{t: t, conn: socket}
	s.read = bufio.NewReader(s)
	t.Cleanup(func() { s.conn.Close() })
	return s, client
}

func conn(t testing.TB, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "qmp")
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Dial returns a negotiated client and its server. The client is closed when
// the test ends.
func Dial(t testing.TB) (*qmp.Client, *Server) {
	t.Helper()
	s, conn := Pipe(t)
	type result struct {
		client *qmp.Client
		err    error
	}
	results := make(chan result, 1)
	go func() {
		client, err := qmp.New(t.Context(), conn)
		results <- result{client, err}
	}()
	s.Send(Greeting)
	s.Return(s.Expect("qmp_capabilities"), "{}")
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.client.Close() })
	return r.client, s
}

// Read implements io.Reader on the connection, and keeps a passed file.
func (s *Server) Read(p []byte) (int, error) {
	oob := make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := s.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		s.file = receivedFile(oob[:oobn])
	}
	if n == 0 && err == nil {
		err = errors.New("client closed the connection")
	}
	return max(n, 0), err // it is -1 with an error
}

func receivedFile(oob []byte) *os.File {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "passed")
}

// Send writes one line as it is. That the client has gone already is no failure
// here: it is up to the client when to give up.
func (s *Server) Send(line string) {
	s.t.Helper()
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	_, err := s.conn.Write([]byte(line + "\n"))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		s.t.Fatalf("qmp server: send %.80q: %v", line, err)
	}
}

// Expect receives the next command, which must be the named one.
func (s *Server) Expect(command string) Command {
	s.t.Helper()
	c := s.Any()
	if c.Execute != command {
		s.t.Fatalf("qmp server: got %s %s, want %s", c.Execute, c.Arguments, command)
	}
	return c
}

// Any receives the next command, whatever it is.
func (s *Server) Any() Command {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.read.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("qmp server: wait for a command: %v", err)
	}
	var c Command
	if err := json.Unmarshal(line, &c); err != nil {
		s.t.Fatalf("qmp server: %q: %v", line, err)
	}
	c.File, s.file = s.file, nil
	return c
}

// Return answers c with a JSON value.
func (s *Server) Return(c Command, value string) {
	s.t.Helper()
	s.Send(fmt.Sprintf(`{"return": %s, "id": %d}`, value, c.ID))
}

// Refuse answers c with an error.
func (s *Server) Refuse(c Command, class, desc string) {
	s.t.Helper()
	s.Send(fmt.Sprintf(`{"error": {"class": %q, "desc": %q}, "id": %d}`, class, desc, c.ID))
}

// Event sends an event with JSON data.
func (s *Server) Event(name, data string) {
	s.t.Helper()
	s.Send(fmt.Sprintf(`{"event": %q, "data": %s, "timestamp": {"seconds": 1, "microseconds": 2}}`, name, data))
}

// Close ends the connection as a dying QEMU does.
func (s *Server) Close() { s.conn.Close() }
