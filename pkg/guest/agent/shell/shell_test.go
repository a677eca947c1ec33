package shell

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamed(t *testing.T) {
	for cmdline, want := range map[string]string{
		"": "", "quiet console=ttyS0\n": "", "ccv2.shell=/bin/sh quiet\n": "/bin/sh", "ccv2.shell=/a ccv2.shell=/b": "/b", "xccv2.shell=/a": "",
	} {
		if got := named(cmdline); got != want {
			t.Errorf("%q: %q, want %q", cmdline, got, want)
		}
	}
}

// TestServe: the program has the terminal, and a session of its own.
func TestServe(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("echo typed-$((40+2)); tty; echo $TERM; exit 3\n"); err != nil {
		t.Fatal(err)
	}
	path := "/dev/pts/" + strconv.Itoa(n)
	err = serve("/bin/sh", path, func(c *exec.Cmd) error { return c.Run() })
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	b := make([]byte, 4096)
	read, err := master.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for err == nil && !strings.Contains(string(b[:read]), "dumb") {
		var more int
		more, err = master.Read(b[read:])
		read += more
	}
	if got := string(b[:read]); !strings.Contains(got, "typed-42") || !strings.Contains(got, path) || !strings.Contains(got, "dumb") {
		t.Errorf("it says %q", got)
	}
	if err := serve("/no/such/shell", path, func(c *exec.Cmd) error { return c.Run() }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
