package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// Port is one virtio-serial port. While the host end is closed, reads wait and
// writes wait too, so a host that reconnects finds everything in place.
type Port struct {
	file *os.File
	raw  syscall.RawConn
}

// FindPorts waits until both ports have their names.
func (m *Machine) FindPorts(ctx context.Context) (ctl, tty *Port, err error) {
	found := map[string]string{}
	err = m.Wait(ctx, func() (bool, error) {
		scanPorts(layout.PortClass, found)
		return found[layout.CtlPort] != "" && found[layout.TTYPort] != "", nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("find ports %s and %s: have %d of 2: %w", layout.CtlPort, layout.TTYPort, len(found), err)
	}
	if ctl, err = openPort(found[layout.CtlPort]); err != nil {
		return nil, nil, err
	}
	if tty, err = openPort(found[layout.TTYPort]); err != nil {
		return nil, nil, err
	}
	return ctl, tty, nil
}

// scanPorts fills found with the device nodes of the two ports by name. A port
// gets its name some time after its directory.
func scanPorts(class string, found map[string]string) {
	names, _ := filepath.Glob(filepath.Join(class, "*/name"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		switch s := strings.TrimSpace(string(b)); s {
		case layout.CtlPort, layout.TTYPort:
			found[s] = "/dev/" + filepath.Base(filepath.Dir(name))
		}
	}
}

func openPort(path string) (*Port, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open port: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open port: %w", err)
	}
	return &Port{file: f, raw: raw}, nil
}

// Read implements [io.Reader]. The driver reports a closed host end as end of
// file; it wakes pollers when the host connects again, so that is waited for.
func (p *Port) Read(b []byte) (int, error) {
	var n int
	var err error
	cerr := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), b)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		return n > 0 || err != nil && !errors.Is(err, unix.EAGAIN)
	})
	if cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: p.file.Name(), Err: err}
	}
	return n, nil
}

// Write implements [io.Writer].
func (p *Port) Write(b []byte) (int, error) { return p.file.Write(b) }

// SetBlocking makes a write return only when the host has taken it, which is
// how the driver treats a port in blocking mode.
func (p *Port) SetBlocking() error {
	var err error
	cerr := p.raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) })
	return errors.Join(cerr, err)
}

var _ io.ReadWriter = (*Port)(nil)

func isOverrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }
