package stdio

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func newFifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll reads in the background and returns what came when the stream ended.
func readAll(t *testing.T, r io.Reader) <-chan string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		got <- string(b)
	}()
	return got
}

func TestStdinEndsWithItsLastClient(t *testing.T) {
	for _, text := range []string{"", "hello"} {
		path := newFifo(t)
		in, err := openStdin(path, false)
		if err != nil {
			t.Fatal(err)
		}
		got := readAll(t, in)
		select {
		case s := <-got:
			t.Fatalf("ended with %q before a client was there", s)
		default:
		}
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if s := <-got; s != text {
			t.Errorf("got %q, want %q", s, text)
		}
		_ = in.Close()
	}
}

func TestStdinOfTerminalSurvivesItsClients(t *testing.T) {
	path := newFifo(t)
	in, err := openStdin(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		n, err := in.Read(b)
		if err != nil || string(b[:n]) != text {
			t.Fatalf("got %q, %v, want %q", b[:n], err, text)
		}
	}
}

func TestFinishKeepsWhatWasWritten(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		path := newFifo(t)
		in, err := openStdin(path, terminal)
		if err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(path, os.O_WRONLY, 0) // stays open: the client may be slow to close
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "rest"); err != nil {
			t.Fatal(err)
		}
		if err := in.Finish(); err != nil {
			t.Fatal(err)
		}
		if s := <-readAll(t, in); s != "rest" {
			t.Errorf("terminal %v: got %q, want %q", terminal, s, "rest")
		}
		_, _ = w.Close(), in.Close()
	}
}
