package stdio

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// openedStdin opens the stdin of a process.
func openedStdin(t *testing.T, path string, terminal bool) *Stdin {
	t.Helper()
	s, err := Open(t.Context(), "test", "c", Config{Stdin: path, Terminal: terminal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.Stdin
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

// client is a client that opens the fifo, writes and does not close it.
func client(t *testing.T, path, text string) *os.File {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestStdinSurvivesItsClients: they write and close, or only close, and each has
// gone before the next one comes. Finish is the end.
func TestStdinSurvivesItsClients(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		path := newFifo(t)
		in := openedStdin(t, path, terminal)
		for _, text := range []string{"one", "", "two"} {
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				_ = os.WriteFile(path, []byte(text), 0) // the first one waits for Read
			}()
			b := make([]byte, len(text))
			if _, err := io.ReadFull(in, b); err != nil || string(b) != text {
				t.Fatalf("terminal %v: got %q, %v, want %q", terminal, b, err, text)
			}
			<-closed
			wantWaiting(t, in)
		}
		if err := in.Finish(); err != nil {
			t.Fatal(err)
		}
		if s := <-readAll(t, in); s != "" {
			t.Errorf("terminal %v: got %q after the end", terminal, s)
		}
	}
}

// wantWaiting wants a stdin that has nothing and has not ended.
func wantWaiting(t *testing.T, in *Stdin) {
	t.Helper()
	if err := in.f.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v, want it to wait for the next client", err)
	}
	if err := in.f.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// TestStdinHasWriterUntilFinish looks at it as a client's poll(2) does: a fifo
// whose writers have gone hangs up.
func TestStdinHasWriterUntilFinish(t *testing.T) {
	path := newFifo(t)
	in := openedStdin(t, path, false)
	go func() { _ = os.WriteFile(path, []byte("x"), 0) }() // waits for the first Read
	if _, err := in.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, in)
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := unix.Read(int(r.Fd()), make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("read: %v, want EAGAIN: nobody holds the fifo open", err)
	}
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "" {
		t.Errorf("got %q", s)
	}
}

// TestFinishKeepsWhatIsWritten: before it, and after it by a client that has the
// fifo open still.
func TestFinishKeepsWhatIsWritten(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		path := newFifo(t)
		in := openedStdin(t, path, terminal)
		got := readAll(t, in)
		w := client(t, path, "first ")
		if err := in.Finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "rest"); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if s := <-got; s != "first rest" {
			t.Errorf("terminal %v: got %q", terminal, s)
		}
	}
}

// TestFinishBeforeRead is CloseIO before the process is started: nothing, or a
// client that has waited for the first Read.
func TestFinishBeforeRead(t *testing.T) {
	path := newFifo(t)
	in := openedStdin(t, path, false)
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	if s := <-readAll(t, in); s != "" {
		t.Errorf("got %q", s)
	}

	path = newFifo(t)
	in = openedStdin(t, path, false)
	hold, err := os.OpenFile(path, os.O_RDWR, 0) // as a client that has waited
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(hold, "text"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "te" {
		t.Fatalf("got %q, %v", b, err)
	}
	_ = hold.Close()
	if s := <-readAll(t, in); s != "xt" {
		t.Errorf("got %q", s)
	}
}

// TestStdinIsFile ends by itself.
func TestStdinIsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := <-readAll(t, openedStdin(t, path, false)); s != "text" {
		t.Errorf("got %q", s)
	}
}

func TestStdinErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := Open(t.Context(), "test", "c", Config{Stdin: missing}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	s, err := Open(t.Context(), "test", "c", Config{Stdin: newFifo(t)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		close(reading)
		_, err := s.Stdin.Read(make([]byte, 1))
		ended <- err
	}()
	<-reading
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
