package fake

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
)

// Exit statuses of processes that a signal ends.
const (
	signalBase = 128
	killed     = signalBase + int(unix.SIGKILL)
)

// Process is a process of a [Runtime]. A signal ends it, unless it ignores it.
type Process struct {
	PID int
	// Spec is what an exec was started with.
	Spec *specs.Process
	// Stdin, Stdout and Stderr are the process's ends of its streams. All are one
	// file with a terminal.
	Stdin, Stdout, Stderr *os.File

	exit chan int // gets the status

	mu      sync.Mutex // guards what follows
	over    bool
	signals []unix.Signal
	ignored []unix.Signal
}

// open takes the process's ends, as a start does.
func (p *Process) open(io ociruntime.IO) error {
	pipes := io.Pipes()
	if pipes == nil {
		terminal, err := sendTerminal(io.Console().Path())
		p.Stdin, p.Stdout, p.Stderr = terminal, terminal, terminal
		return errors.Join(err, io.Attach())
	}
	var cmd exec.Cmd
	pipes.Set(&cmd)
	var errs []error
	for _, end := range []struct {
		of   any
		file **os.File
	}{{cmd.Stdin, &p.Stdin}, {cmd.Stdout, &p.Stdout}, {cmd.Stderr, &p.Stderr}} {
		file, ok := end.of.(*os.File)
		if !ok {
			return errors.New("a stream of the process is not a file")
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		// Whoever reads or writes is to be woken by the end of the process.
		errs = append(errs, err, unix.SetNonblock(fd, true))
		*end.file = os.NewFile(uintptr(fd), file.Name())
	}
	if closer, ok := pipes.(interface{ CloseAfterStart() error }); ok {
		errs = append(errs, closer.CloseAfterStart())
	}
	return errors.Join(append(errs, io.Attach())...)
}

// sendTerminal sends the master of a new terminal to a console socket, as an OCI
// runtime does, and returns the process's end.
func sendTerminal(socket string) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	name := "/dev/pts/" + strconv.Itoa(number)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix([]byte(name), unix.UnixRights(fd), nil); err != nil {
		return nil, err
	}
	return os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
}

// Exit ends the process. Its streams end with it.
func (p *Process) Exit(status int) {
	if p.end(status) {
		p.Close()
	}
}

// ExitOnly ends the process and leaves its streams open, as if it had descendants.
// The test closes them with Close.
func (p *Process) ExitOnly(status int) { p.end(status) }

// Close closes the streams.
func (p *Process) Close() {
	for _, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		f.Close() // a terminal is closed three times, which is harmless
	}
}

// end reports whether the process had not ended before.
func (p *Process) end(status int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.over = true
	p.exit <- status
	return true
}

func (p *Process) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over
}

// Ignore lets a signal not end the process.
func (p *Process) Ignore(sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ignored = append(p.ignored, sig)
}

// Signals returns the signals that the process got.
func (p *Process) Signals() []unix.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.signals)
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig unix.Signal) error {
	p.mu.Lock()
	over, ends := p.over, sig != 0 && !slices.Contains(p.ignored, sig)
	if !over {
		p.signals = append(p.signals, sig)
	}
	p.mu.Unlock()
	if over {
		return ociruntime.ErrExited
	}
	if ends {
		p.Exit(signalBase + int(sig))
	}
	return nil
}

// Size returns the size of the process's terminal.
func (p *Process) Size() (rows, columns int, err error) {
	size, err := unix.IoctlGetWinsize(int(p.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return int(size.Row), int(size.Col), nil
}
