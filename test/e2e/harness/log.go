//go:build e2e

package harness

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logSize is where the log of containerd and its shims ends now.
func (c *Containerd) logSize() int64 {
	info, err := os.Stat(c.logPath())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logFrom returns the log from an offset on.
func (c *Containerd) logFrom(offset int64) []byte {
	f, err := os.Open(c.logPath())
	if err != nil {
		return []byte(err.Error())
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return []byte(err.Error())
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// LogSince returns a function that returns the lines which containerd and the shims have logged since.
func (c *Containerd) LogSince() func() []string {
	begin := c.logSize()
	return func() []string { return strings.Split(string(c.logFrom(begin)), "\n") }
}

// withoutPlugins drops what containerd says when it starts.
func withoutPlugins(text []byte) string {
	var kept strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "loading plugin") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

const (
	stacksBegin = "=== BEGIN goroutine stack dump ==="
	stacksEnd   = "=== END goroutine stack dump ==="
)

// stacks asks a shim for the stacks of its goroutines.
func (c *Containerd) stacks(shim Process) (string, error) {
	begin := c.logSize()
	if err := unix.Kill(shim.PID, unix.SIGUSR1); err != nil {
		return "", err
	}
	var text string
	if !within(cleanWithin, func() bool {
		text = string(c.logFrom(begin))
		return strings.Contains(text, stacksEnd)
	}) {
		return "", fmt.Errorf("%s wrote no stacks", shim)
	}
	_, text, _ = strings.Cut(text, stacksBegin)
	text, _, _ = strings.Cut(text, stacksEnd)
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(text), nil
}

var goroutineHead = regexp.MustCompile(`(?m)^goroutine \d+ \[`)

// Goroutines returns how many goroutines a shim has, and their stacks.
func (c *Containerd) Goroutines(tb testing.TB, shim Process) (n int, stacks string) {
	tb.Helper()
	stacks, err := c.stacks(shim)
	if err != nil {
		tb.Fatal(err)
	}
	return len(goroutineHead.FindAllString(stacks, -1)), stacks
}

// Log is what containerd and its shims have logged so far.
func (c *Containerd) Log() string { return string(c.logFrom(0)) }
