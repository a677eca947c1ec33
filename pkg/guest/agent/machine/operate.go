package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// maxKernelLog bounds what is read of the kernel's log; it fits in a control message.
const maxKernelLog = 1 << 20

// KernelTasks returns what the kernel says of its tasks, with their stacks. That goes
// through its log, of which nothing reaches the console.
func KernelTasks() ([]byte, error) {
	const mark = "ccv2-agent: tasks are asked for"
	if err := kernfs.Write("/dev/kmsg", "<6>"+mark+"\n"); err != nil {
		return nil, fmt.Errorf("write to the kernel's log: %w", err)
	}
	if err := kernfs.Write("/proc/sysrq-trigger", "t"); err != nil {
		return nil, fmt.Errorf("ask for the kernel's tasks: %w", err)
	}
	b := make([]byte, maxKernelLog)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's log: %w", err)
	}
	b = b[:n]
	if i := bytes.LastIndex(b, []byte(mark)); i >= 0 { // a log that is full has lost it
		b = b[i+len(mark):]
	}
	return bytes.TrimLeft(b, "\n"), nil
}

// ReceiveName is the name by which the agent runs itself to receive a file.
const ReceiveName = "receive"

// Receive writes the standard input to a program at a path, and returns the exit status.
func Receive(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: receive PATH")
		return 2
	}
	if err := receive(args[0], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func receive(path string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // it may run
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
