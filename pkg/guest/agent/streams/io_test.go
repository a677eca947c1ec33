package streams

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// hostPort serves a port on one end of a pipe and returns the other end and its
// messages.
func hostPort(t *testing.T) (*Port, net.Conn, *hyperstart.TTYReader) {
	t.Helper()
	host, guest := net.Pipe()
	p := newTestPort(t, guest)
	served := make(chan struct{})
	go func() { _ = p.Serve(); close(served) }()
	t.Cleanup(func() { host.Close(); <-served })
	return p, host, hyperstart.NewTTYReader(host)
}

// childEnds takes the ends of the process, as its start does.
func childEnds(t *testing.T, s *IO) (stdin io.Reader, stdout io.Writer, closeAll func()) {
	t.Helper()
	var cmd exec.Cmd
	s.Pipes().Set(&cmd)
	ends := []any{cmd.Stdin, cmd.Stdout, cmd.Stderr}
	files := make([]*os.File, 0, len(ends))
	for _, end := range ends {
		fd, err := unix.Dup(int(end.(*os.File).Fd()))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), "child"))
	}
	if err := s.pipes.CloseAfterStart(); err != nil {
		t.Fatal(err)
	}
	return files[0], files[1], func() {
		for _, f := range files {
			f.Close()
		}
	}
}

func TestIO(t *testing.T) {
	p, host, messages := hostPort(t)
	s, err := p.Open(Options{Stdio: 1, Stderr: 2})
	if err != nil {
		t.Fatal(err)
	}
	if s.Console() != nil {
		t.Error("a console socket without a terminal")
	}
	stdin, stdout, exit := childEnds(t, s)
	s.Start()
	mustWrite(t, host, hyperstart.AppendTTY(nil, 1, []byte("input")))
	mustWrite(t, host, hyperstart.AppendTTY(nil, 1, nil))
	if b, err := io.ReadAll(stdin); err != nil || string(b) != "input" {
		t.Errorf("stdin: %q, %v", b, err)
	}
	mustWrite(t, stdout, []byte("output"))
	if seq, b, err := messages.Read(); err != nil || seq != 1 || string(b) != "output" {
		t.Errorf("stdout: %d %q, %v", seq, b, err)
	}
	select {
	case <-s.Drained():
		t.Error("drained before the process has ended")
	default:
	}
	exit()
	<-s.Drained()
	s.Close()
	go s.SendExit(7)
	for _, want := range []string{"", "\x07"} {
		if seq, b, err := messages.Read(); err != nil || seq != 1 || string(b) != want {
			t.Errorf("exit: %d %q, %v", seq, b, err)
		}
	}
}

// TestIOCloseWithInput closes streams while their input waits for a process that
// does not read.
func TestIOCloseWithInput(t *testing.T) {
	p, host, _ := hostPort(t)
	s, err := p.Open(Options{Stdio: 1, Stderr: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, _, exit := childEnds(t, s)
	defer exit()
	s.Start()
	for range 4 { // more than a pipe takes
		mustWrite(t, host, hyperstart.AppendTTY(nil, 1, make([]byte, hyperstart.MaxTTYPayload/2)))
	}
	s.Close()
}

func TestOpenRefusals(t *testing.T) {
	p := newTestPort(t, nil)
	if _, err := p.Open(Options{Stdio: 1}); err == nil {
		t.Error("no stderr without a terminal")
	}
	s, err := p.Open(Options{Stdio: 1, Stderr: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(Options{Stdio: 2, Terminal: true}); err == nil {
		t.Error("a sequence number was used twice")
	}
	s.Abort()
	s, err = p.Open(Options{Stdio: 2, Stderr: 1})
	if err != nil {
		t.Fatalf("sequence numbers are not free after Abort: %v", err)
	}
	s.Abort()
}

// TestTerminal does what an OCI runtime does with the console socket.
func TestTerminal(t *testing.T) {
	p, host, messages := hostPort(t)
	s, err := p.Open(Options{Stdio: 1, Stderr: 9, Terminal: true, Rows: 33, Columns: 99})
	if err != nil {
		t.Fatal(err)
	}
	if s.Pipes() != nil {
		t.Error("pipes with a terminal")
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	conn, err := net.Dial("unix", s.Console().Path())
	if err != nil {
		t.Fatal(err)
	}
	raw := int(master.Fd())
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("/dev/pts/0"), unix.UnixRights(raw), nil); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := unix.IoctlSetPointerInt(raw, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(raw, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	master.Close()
	if err := s.Attach(); err != nil {
		t.Fatal(err)
	}
	size, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row != 33 || size.Col != 99 {
		t.Errorf("size is %+v, %v", size, err)
	}
	s.Start()
	mustWrite(t, host, hyperstart.AppendTTY(nil, 1, []byte("line\n")))
	b := make([]byte, 64)
	if n, err := slave.Read(b); err != nil || string(b[:n]) != "line\n" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	var echo bytes.Buffer
	for echo.Len() < len("line\r\n") {
		_, b, err := messages.Read()
		if err != nil {
			t.Fatal(err)
		}
		echo.Write(b)
	}
	if got := echo.String(); got != "line\r\n" {
		t.Errorf("echo is %q", got)
	}
	slave.Close()
	<-s.Drained()
	s.Close()
}

// TestWithoutCredits: a host that knows no credits gets all output, no message about credit, and
// has more input taken than a window has.
func TestWithoutCredits(t *testing.T) {
	p, host, r := hostPort(t)
	p.WithoutCredits()
	s, err := p.Open(Options{Stdio: 3, Stderr: 4})
	if err != nil {
		t.Fatal(err)
	}
	stdin, stdout, closeAll := childEnds(t, s)
	s.Start()
	const size = 3 * hyperstart.CreditWindow
	sent := make(chan error)
	go func() {
		_, err := stdout.Write(make([]byte, size))
		sent <- err
	}()
	for got := 0; got < size; {
		seq, payload, err := r.Read()
		if err != nil || seq != 3 || len(payload)+hyperstart.TTYHeaderLen > 10240 {
			t.Fatalf("after %d bytes: %d bytes of %d, %v", got, len(payload), seq, err)
		}
		got += len(payload)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	go func() {
		for range size / hyperstart.MaxTTYPayload {
			if _, err := host.Write(hyperstart.AppendTTY(nil, 3, make([]byte, hyperstart.MaxTTYPayload))); err != nil {
				sent <- err
			}
		}
		_, err := host.Write(hyperstart.AppendTTY(nil, 3, nil))
		sent <- err
	}()
	if n, err := io.Copy(io.Discard, stdin); n != size || err != nil {
		t.Errorf("the process got %d bytes of %d, %v", n, size, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	closeAll()
	<-s.Drained()
	s.Close()
	go s.SendExit(5)
	for _, want := range []string{"", "\x05"} { // and no credit before
		if seq, payload, err := r.Read(); err != nil || seq != 3 || string(payload) != want {
			t.Errorf("%q of %d, %v", payload, seq, err)
		}
	}
}
