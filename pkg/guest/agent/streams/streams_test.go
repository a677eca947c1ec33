package streams

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestStdinPumpGrantsInBatches(t *testing.T) {
	var granted []int
	in := newStdin(false, func(n int) { granted = append(granted, n) })
	chunk := bytes.Repeat([]byte("x"), hyperstart.MaxTTYPayload)
	for range hyperstart.CreditWindow / len(chunk) {
		if !in.push(chunk) {
			t.Fatal("push within the window refused")
		}
	}
	if in.push([]byte("y")) {
		t.Error("push above the window accepted")
	}
	in.push(nil)
	var got bytes.Buffer
	in.pump(&got)
	if got.Len() != hyperstart.CreditWindow {
		t.Errorf("got %d bytes, want %d", got.Len(), hyperstart.CreditWindow)
	}
	if diff := cmp.Diff([]int{grantBatch, grantBatch, grantBatch, grantBatch}, granted); diff != "" {
		t.Error(diff)
	}
	if !in.push([]byte("late")) {
		t.Error("data after the end is no violation, it is ignored")
	}
}

// TestStdinPumpOfDeafProcess checks that a process which closed its input
// still consumes what comes, so that the host is not left waiting for credit.
func TestStdinPumpOfDeafProcess(t *testing.T) {
	granted := 0
	in := newStdin(false, func(n int) { granted += n })
	for range 4 {
		in.push(make([]byte, grantBatch))
	}
	in.push(nil)
	r, w := io.Pipe()
	r.Close()
	in.pump(w)
	if granted != hyperstart.CreditWindow {
		t.Errorf("granted %d, want %d", granted, hyperstart.CreditWindow)
	}
}

func TestStdinOfTerminalHasNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newStdin(true, func(int) {})
		done := make(chan string)
		r, w := io.Pipe()
		go func() { in.pump(w); w.Close(); close(done) }()
		in.push(nil)
		in.push([]byte("a"))
		b := make([]byte, 8)
		if n, err := r.Read(b); n != 1 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		synctest.Wait()
		select {
		case <-done:
			t.Error("pump ended")
		default:
		}
		in.close()
		<-done
	})
}

// sink collects what an output sends.
type sink struct {
	mu  sync.Mutex
	got bytes.Buffer
}

func (s *sink) write(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got.Write(b)
	return true
}

// payload returns what was sent without headers.
func (s *sink) payload(t *testing.T) (data []byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := hyperstart.NewTTYReader(bytes.NewReader(s.got.Bytes()))
	for {
		seq, b, err := r.Read()
		if errors.Is(err, io.EOF) {
			return data
		}
		if err != nil || seq != 7 {
			t.Fatalf("sequence %d, %v", seq, err)
		}
		data = append(data, b...)
	}
}

func TestOutputStaysWithinCredit(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 30000)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = w.Write(want); w.Close() }()
	s := &sink{}
	sent := make(chan int, 1024)
	o := &output{seq: 7, file: r, piece: hyperstart.MaxTTYPayload, credit: newCredit(1000), write: func(b []byte) bool {
		sent <- len(b) - hyperstart.TTYHeaderLen
		return s.write(b)
	}}
	done := make(chan struct{})
	go func() { o.pump(); close(done) }()
	total := 0
	for grant := 1; total < len(want); grant = grant*2 + 1 {
		n := <-sent
		total += n
		if grant == 1 && n != 1000 {
			t.Errorf("first message has %d bytes, credit was 1000", n)
		}
		o.credit.add(grant)
	}
	<-done
	got := s.payload(t)
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes that differ from %d bytes written", len(got), len(want))
	}
}

// TestOutputOfMuch: the pipe of a process that writes much gets room for it, and what is in it is
// read at once and sent in the largest messages.
func TestOutputOfMuch(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), (firstRead+4*largeRead)/16)
	go func() { _, _ = w.Write(want); w.Close() }()
	s := &sink{}
	var sizes []int
	o := &output{seq: 7, file: r, piece: largestPiece, credit: newCredit(len(want))}
	o.write = func(b []byte) bool {
		if len(sizes) == 1 { // the pipe is large by now
			for o.pending() < largeRead {
				runtime.Gosched()
			}
		}
		sizes = append(sizes, len(b))
		return s.write(b)
	}
	o.pump()
	if got := s.payload(t); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes that differ from %d bytes written", len(got), len(want))
	}
	if got, want := slices.Max(sizes), hyperstart.MaxTTYPayload; got != want {
		t.Errorf("the largest message has %d bytes, want %d with its header", got, want)
	}
}

// TestOutputOfGrandchild checks that a stream that stays open is given up after
// the delay, and that everything written before is sent, also when the host
// was slow to grant credit.
func TestOutputOfGrandchild(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := &sink{}
	o := &output{seq: 7, file: r, piece: hyperstart.MaxTTYPayload, credit: newCredit(4), write: s.write}
	if _, err := w.Write([]byte("before the end")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { o.pump(); close(done) }()
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	o.credit.add(100)
	<-done
	if got := s.payload(t); string(got) != "before the end" {
		t.Errorf("got %q", got)
	}
}

func TestOutputDiscarded(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	o := &output{seq: 7, file: r, piece: hyperstart.MaxTTYPayload, credit: newCredit(0), write: (&sink{}).write}
	if _, err := w.Write([]byte("nobody wants this")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { o.pump(); close(done) }()
	o.credit.close()
	<-done
}

// newTestPort returns a port that must not fail.
func newTestPort(t *testing.T, rw io.ReadWriter) *Port {
	t.Helper()
	return NewPort(rw, t.TempDir(), func(err error) { t.Errorf("port failed: %v", err) })
}

func TestTTYSequences(t *testing.T) {
	tty := newTestPort(t, nil)
	in := newStdin(false, nil)
	if _, _, err := tty.register(1, 2, in); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ stdio, stderr uint64 }{{0, 5}, {5, 5}, {1, 5}, {5, 1}, {2, 0}} {
		if _, _, err := tty.register(tt.stdio, tt.stderr, in); err == nil {
			t.Errorf("sequences %d and %d accepted", tt.stdio, tt.stderr)
		}
	}
	tty.unregister(1, 2)
	if _, _, err := tty.register(2, 1, in); err != nil {
		t.Error(err)
	}
}

// TestTTYReaderNeverWaits sends input for a process that does not read, then
// for another one.
func TestTTYReaderNeverWaits(t *testing.T) {
	host, guest := net.Pipe()
	tty := newTestPort(t, guest)
	done := make(chan error, 1)
	go func() { done <- tty.Serve() }()
	stuck, other := newStdin(false, nil), newStdin(false, nil)
	out, _, err := tty.register(1, 0, stuck)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tty.register(2, 0, other); err != nil {
		t.Fatal(err)
	}
	// More than the window: the rest is dropped, the reader continues.
	for range hyperstart.CreditWindow/hyperstart.MaxTTYPayload + 2 {
		mustWrite(t, host, hyperstart.AppendTTY(nil, 1, make([]byte, hyperstart.MaxTTYPayload)))
	}
	mustWrite(t, host, hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 1, Bytes: 5}))
	mustWrite(t, host, hyperstart.AppendTTY(nil, 2, []byte("hello")))
	if got := string(other.next()); got != "hello" {
		t.Errorf("got %q", got)
	}
	if got, want := out.take(1<<30), hyperstart.CreditWindow+5; got != want {
		t.Errorf("credit is %d, want %d", got, want)
	}
	host.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("serve: %v", err)
	}
}

func mustWrite(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestSendExit(t *testing.T) {
	host, guest := net.Pipe()
	go func() { newTestPort(t, guest).sendExit(9, 137) }()
	r := hyperstart.NewTTYReader(host)
	for _, want := range []string{"", "\x89"} {
		seq, b, err := r.Read()
		if err != nil || seq != 9 || string(b) != want {
			t.Errorf("got %d %q %v, want %q", seq, b, err, want)
		}
	}
}
