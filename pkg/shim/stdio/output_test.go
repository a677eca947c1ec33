package stdio

import (
	"io"
	"os"
	"testing"
	"time"
)

// TestFirstReader opens the reader of a fifo after the writer, which has gone
// again as soon as it can, like the output of a short process.
func TestFirstReader(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		path := newFifo(t)
		done := make(chan error, 1)
		go func() {
			s, err := Open(t.Context(), "ns", "id", Config{Stdout: path, Terminal: terminal})
			if err == nil {
				_, err = io.WriteString(s.Stdout, "hello")
				_ = s.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Fatalf("the writer has gone before there was a reader (error %v)", err)
		case <-time.After(20 * time.Millisecond): // a writer that does not wait takes less
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); string(b) != "hello" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = r.Close()
	}
}

// TestReaderComesAndGoes keeps what is written while there is no reader.
func TestReaderComesAndGoes(t *testing.T) {
	path := newFifo(t)
	first, err := os.OpenFile(path, os.O_RDWR, 0) // does not wait for the writer
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), "ns", "id", Config{Stdout: path})
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := io.WriteString(s.Stdout, "hello"); err != nil {
		t.Fatal(err)
	}
	second, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(second); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}
