package ociruntime

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Run runs a program of the guest itself, outside of every container.
func (r *Runtime) Run(cgroup string, spec *specs.Process, io IO) (*Child, error) {
	path, err := lookUp(spec)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: spec.Args, Env: spec.Env, Dir: spec.Cwd, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if io.Pipes() != nil {
		return r.spawn(cgroup, cmd, io)
	}
	terminal, err := giveTerminal(spec.ConsoleSize, io.Console().Path())
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	defer terminal.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr.Setctty = terminal, terminal, terminal, true
	child, err := r.spawn(cgroup, cmd, nil)
	if err != nil {
		return nil, err
	}
	return child, io.Attach()
}

// lookUp finds a program in the directories that its environment names.
func lookUp(spec *specs.Process) (string, error) {
	name := spec.Args[0]
	dirs := []string{""}
	if !strings.Contains(name, "/") {
		dirs = nil
		for _, env := range spec.Env {
			if path, ok := strings.CutPrefix(env, "PATH="); ok {
				dirs = filepath.SplitList(path)
			}
		}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", hyperstart.Errorf(hyperstart.ClassNotFound, "there is no program %s in the guest", name)
}

// giveTerminal makes a terminal, whose master it sends to a console socket.
func giveTerminal(size *specs.Box, socket string) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if size != nil {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}); err != nil {
			return nil, err
		}
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	slave := "/dev/pts/" + strconv.Itoa(n)
	if _, _, err := conn.WriteMsgUnix([]byte(slave), unix.UnixRights(fd), nil); err != nil {
		return nil, err
	}
	return os.OpenFile(slave, os.O_RDWR|unix.O_NOCTTY, 0)
}
