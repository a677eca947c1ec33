package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// ForwardName is the name by which the agent runs itself as a connection.
const ForwardName = "forward"

// connect starts a process that is a connection to a port of the guest's
// loopback. It belongs to the container: it ends with it and counts for its
// limits.
func (a *Agent) connect(c *container, req *hyperstart.Process) error {
	p, err := a.newProcess(c, req.ID, req, false)
	if err != nil {
		return err
	}
	if err := c.begin(p); err != nil {
		a.abandon(p)
		return err
	}
	group, err := os.Open(string(c.group))
	if err != nil {
		c.forget(p)
		a.abandon(p)
		return err
	}
	defer group.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{ForwardName, strconv.Itoa(int(req.Port))},
		SysProcAttr: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())},
	}
	pipes := p.io.Pipes()
	pipes.Set(cmd)
	exit, err := a.reaper.Start(cmd)
	if err != nil {
		c.forget(p)
		a.abandon(p)
		return fmt.Errorf("connect to port %d: %w", req.Port, err)
	}
	if closer, ok := pipes.(runc.StartCloser); ok {
		if err := closer.CloseAfterStart(); err != nil {
			console.Logf("container %s: %v", c.id, err)
		}
	}
	c.setPID(p, cmd.Process.Pid)
	a.run(p, exit)
	return nil
}

// Forward copies the standard streams to and from a TCP port of the loopback,
// and returns the exit status.
func Forward(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: forward PORT")
		return 2
	}
	if err := forward(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func forward(port string) error {
	conn, err := dialLoopback(context.Background(), port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	go func() {
		// Whatever ends the input, the other direction says how it ended.
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// dialTimeout bounds a connection that the guest's own firewall keeps waiting.
const dialTimeout = 10 * time.Second

// dialLoopback tries both families, as a client that was told "localhost" does.
func dialLoopback(ctx context.Context, port string) (*net.TCPConn, error) {
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err == nil {
			return conn.(*net.TCPConn), nil //nolint:forcetypeassert // "tcp"
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
