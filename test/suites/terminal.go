package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// typingTimeout is how long a text may take to come.
const typingTimeout = time.Minute

// terminal runs a command of the rows on a terminal and types each input when
// its text has come: [TEXT INPUT]... -- COMMAND...
func terminal(args []string) error {
	end := slices.Index(args, "--")
	if end < 0 || end%2 != 0 {
		return errors.New("-terminal takes [TEXT INPUT]... -- COMMAND [ARGUMENT]")
	}
	outside, inside, err := openTerminal()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	defer func() { _ = outside.Close() }()
	cmd := exec.Command("sh", append([]string{"-c", `. "$FUNCTIONS"; "$@"`, "sh"}, args[end+1:]...)...) //nolint:noctx // the row's deadline ends both
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	_ = inside.Close()
	if err != nil {
		return err
	}
	output := make(chan []byte)
	go func() { // until the last process has closed the terminal
		defer close(output)
		for {
			data := make([]byte, 4096)
			n, err := outside.Read(data)
			if n > 0 {
				output <- data[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	if err := converse(outside, output, args[:end]); err != nil {
		return errors.Join(err, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL), cmd.Wait())
	}
	var exit *exec.ExitError
	if err = cmd.Wait(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	return err
}

// converse prints what comes and types what is to be typed.
func converse(w io.Writer, output <-chan []byte, dialog []string) error {
	seen := []byte{}
	deadline := time.NewTimer(typingTimeout)
	for {
		for len(dialog) > 0 {
			text, errText := strconv.Unquote(`"` + dialog[0] + `"`) // \n, \x10
			input, errInput := strconv.Unquote(`"` + dialog[1] + `"`)
			if err := errors.Join(errText, errInput); err != nil {
				return fmt.Errorf("%q: %w", dialog[:2], err)
			}
			i := bytes.Index(seen, []byte(text))
			if i < 0 {
				break
			}
			if _, err := io.WriteString(w, input); err != nil {
				return err
			}
			seen, dialog = seen[i+len(text):], dialog[2:]
		}
		select {
		case data, open := <-output:
			if !open {
				if len(dialog) > 0 {
					return fmt.Errorf("the terminal was closed before %q", dialog[0])
				}
				return nil
			}
			_, _ = os.Stdout.Write(data)
			seen = append(seen, data...)
		case <-deadline.C:
			return fmt.Errorf("no end, and to come: %q", dialog)
		}
	}
}

// openTerminal returns both ends of a new terminal of 100 columns and 30 rows.
func openTerminal() (outside, inside *os.File, err error) {
	outside, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(outside.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}))
	if err == nil {
		inside, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, outside.Close())
	}
	return outside, inside, nil
}
