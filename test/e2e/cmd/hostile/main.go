// Command hostile is the /init of a guest that breaks the protocol. The kernel's
// command line says how: ccv2.hostile=MODE, one of the keys of atBoot, or of
// whenProvoked. In the latter modes it serves the host as an agent does, without
// running anything, until the container gets SIGUSR1.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "hostile: this is the init of a guest; it does nothing elsewhere")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Println("hostile:", err) // the kernel panics without init, and the VM ends
		os.Exit(1)
	}
}

func run() error {
	if err := boot(); err != nil {
		return err
	}
	mode, err := modeOf("/proc/cmdline")
	if err != nil {
		return err
	}
	ctl, tty, err := findPorts()
	if err != nil {
		return err
	}
	fmt.Println("hostile:", mode)
	g := &guest{ctl: ctl, tty: tty, deaf: deaf[mode]}
	if attack := atBoot[mode]; attack != nil {
		attack(g)
	} else {
		g.provoked = whenProvoked[mode]
		g.ready()
	}
	fmt.Println("hostile:", g.serve())
	for range time.Tick(time.Hour) { // it is for the host to end the VM
	}
	return nil
}

// boot makes the ports appear.
func boot() error {
	for _, m := range []struct{ target, fstype string }{{"/dev", "devtmpfs"}, {"/sys", "sysfs"}, {"/proc", "proc"}} {
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	list, err := os.ReadFile(layout.ModuleList)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, path := range layout.ModulesOf(string(list), layout.PhaseBoot) {
		if err := load(path); err != nil {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// modeOf reads the mode from the kernel's command line.
func modeOf(path string) (string, error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(line)) {
		mode, ok := strings.CutPrefix(word, "ccv2.hostile=")
		if ok && (atBoot[mode] != nil || whenProvoked[mode] != nil) {
			return mode, nil
		}
	}
	return "", fmt.Errorf("no known mode in %q", line)
}

// findPorts waits for the two ports.
func findPorts() (ctl, tty *port, err error) {
	found := map[string]string{} // device by name
	for range time.Tick(5 * time.Millisecond) {
		names, _ := filepath.Glob(layout.PortClass + "/*/name") // the pattern is well-formed
		for _, path := range names {
			if name, err := os.ReadFile(path); err == nil {
				found[strings.TrimSpace(string(name))] = "/dev/" + filepath.Base(filepath.Dir(path))
			}
		}
		if found[layout.CtlPort] != "" && found[layout.TTYPort] != "" {
			break
		}
	}
	if ctl, err = openPort(found[layout.CtlPort]); err != nil {
		return nil, nil, err
	}
	tty, err = openPort(found[layout.TTYPort])
	return ctl, tty, err
}

// port is a virtio-serial port. Writes wait for the host to connect; reads only
// do so once it has.
type port struct {
	fd int
	mu sync.Mutex // keeps messages whole, which take several writes
}

func openPort(path string) (*port, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &port{fd: fd}, nil
}

// Read implements [io.Reader].
func (p *port) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(p.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("read port: %w", err)
		case n == 0:
			return 0, errors.New("the host has hung up")
		default:
			return n, nil
		}
	}
}

// send writes whole messages. What cannot be written is lost: the host has hung
// up, which is what it should do.
func (p *port) send(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		n, err := unix.Write(p.fd, b) // the driver takes 32 KiB at a time
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		b = b[max(n, 0):]
	}
}
