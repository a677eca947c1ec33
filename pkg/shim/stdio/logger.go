package stdio

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// loggerReady bounds how long a logging binary may take until it reads.
	loggerReady = 10 * time.Second
	// loggerEnd bounds how long it may take to end after its input has ended.
	loggerEnd = 10 * time.Second
)

// logger is a running logging binary (containerd's binary:// scheme): it gets
// stdout as fd 3 and stderr as fd 4 and closes fd 5 when it is ready.
type logger struct {
	cmd            *exec.Cmd
	stdout, stderr *os.File
	done           chan struct{} // closed when it was reaped
	err            error         // valid after done
}

func startLogger(ctx context.Context, namespace, id string, uri *url.URL) (_ *logger, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("start logger: %w", err)
		}
		files = append(files, r, w)
	}
	outR, outW, errR, errW, readyR, readyW := files[0], files[1], files[2], files[3], files[4], files[5]
	cmd := exec.Command(uri.Path) //nolint:noctx // the operator's own choice of binary; it outlives the request
	for key, values := range uri.Query() {
		cmd.Args = append(cmd.Args, key)
		if len(values) > 0 && values[0] != "" {
			cmd.Args = append(cmd.Args, values[0])
		}
	}
	cmd.Env = append(os.Environ(), "CONTAINER_ID="+id, "CONTAINER_NAMESPACE="+namespace)
	cmd.ExtraFiles = []*os.File{outR, errR, readyW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals for the shim are not for it
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start logger %s: %w", uri.Path, err)
	}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	l := &logger{cmd: cmd, stdout: outW, stderr: errW, done: make(chan struct{})}
	go func() {
		l.err = cmd.Wait()
		close(l.done)
	}()
	if err := waitReady(ctx, readyR); err != nil {
		_ = cmd.Process.Kill()
		<-l.done
		return nil, fmt.Errorf("start logger %s: %w", uri.Path, err)
	}
	return l, nil
}

// waitReady waits until the binary closes its end of the pipe.
func waitReady(ctx context.Context, r *os.File) error {
	defer func() { _ = r.Close() }()
	deadline := time.Now().Add(loggerReady)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := r.SetReadDeadline(deadline); err != nil {
		return err
	}
	var b [1]byte
	if _, err := r.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("not ready in time: it must close file descriptor 5")
	}
	return nil
}

// wait lets the binary write what it has, after its inputs were closed.
func (l *logger) wait() error {
	select {
	case <-l.done:
	case <-time.After(loggerEnd):
		_ = l.cmd.Process.Kill()
		<-l.done
	}
	return l.err
}
