package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp/qmptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// execute runs a command in the background.
func execute(ctx context.Context, c *qmp.Client, command string, result any) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.Execute(ctx, command, nil, result) }()
	return done
}

func TestVersion(t *testing.T) {
	client, _ := qmptest.Dial(t)
	want := qmp.Version{Major: 7, Minor: 2, Micro: 22, Package: "Debian"}
	if diff := cmp.Diff(want, client.Version()); diff != "" {
		t.Errorf("version (-want +got):\n%s", diff)
	}
	if got := client.Version().String(); got != "7.2.22" {
		t.Errorf("version %q, want 7.2.22", got)
	}
}

func TestExecute(t *testing.T) {
	client, server := qmptest.Dial(t)
	type status struct{ Running bool }
	var got status
	done := make(chan error, 1)
	go func() { done <- client.Execute(t.Context(), "query-status", map[string]int{"a": 1}, &got) }()
	c := server.Expect("query-status")
	if string(c.Arguments) != `{"a":1}` {
		t.Errorf("arguments %s", c.Arguments)
	}
	server.Return(c, `{"running": true}`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !got.Running {
		t.Errorf("result %+v", got)
	}
}

// TestOutOfOrder has QEMU answer two commands in the other order.
func TestOutOfOrder(t *testing.T) {
	client, server := qmptest.Dial(t)
	var first, second string
	a := execute(t.Context(), client, "first", &first)
	ca := server.Expect("first")
	b := execute(t.Context(), client, "second", &second)
	cb := server.Expect("second")
	server.Return(cb, `"two"`)
	if err := <-b; err != nil {
		t.Fatal(err)
	}
	server.Return(ca, `"one"`)
	if err := <-a; err != nil {
		t.Fatal(err)
	}
	if first != "one" || second != "two" {
		t.Errorf("results %q, %q", first, second)
	}
}

func TestError(t *testing.T) {
	client, server := qmptest.Dial(t)
	done := execute(t.Context(), client, "device_del", nil)
	server.Refuse(server.Expect("device_del"), "DeviceNotFound", "Device 'x' not found")
	err := <-done
	want := &qmp.Error{Command: "device_del", Class: qmp.ClassDeviceNotFound, Desc: "Device 'x' not found"}
	var got *qmp.Error
	if !errors.As(err, &got) {
		t.Fatalf("error %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if !errors.Is(err, &qmp.Error{Class: qmp.ClassDeviceNotFound}) || errors.Is(err, &qmp.Error{Class: qmp.ClassGeneric}) {
		t.Error("Is does not go by the class")
	}
	if got, want := err.Error(), "qmp device_del: Device 'x' not found (DeviceNotFound)"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
}

// TestCancel gives up on a command; its late answer disturbs nobody.
func TestCancel(t *testing.T) {
	client, server := qmptest.Dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := execute(ctx, client, "slow", nil)
	slow := server.Expect("slow")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	var got int
	done = execute(t.Context(), client, "next", &got)
	next := server.Expect("next")
	server.Return(slow, `"late"`)
	server.Return(next, `42`)
	if err := <-done; err != nil || got != 42 {
		t.Errorf("next command: %d, %v", got, err)
	}
}

// TestCancelWhileQEMUDoesNotRead fills the socket's buffer, gives up on all,
// and finds every line whole when QEMU reads on.
func TestCancelWhileQEMUDoesNotRead(t *testing.T) {
	client, server := qmptest.Dial(t)
	big := strings.Repeat("x", 64<<10)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := client.Execute(ctx, "big", big, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	done := execute(t.Context(), client, "last", nil)
	// Those that the writer had not begun were never sent.
	for {
		c := server.Any()
		if c.Execute == "last" {
			server.Return(c, "{}")
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPassFile(t *testing.T) {
	client, server := qmptest.Dial(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan error, 1)
	go func() { done <- client.ExecuteFile(t.Context(), "getfd", map[string]string{"fdname": "f"}, nil, w) }()
	c := server.Expect("getfd")
	if c.File == nil {
		t.Fatal("no file came with the command")
	}
	server.Return(c, "{}")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil { // still ours, and not the server's
		t.Fatal(err)
	}
	if _, err := c.File.WriteString("through it"); err != nil {
		t.Fatal(err)
	}
	c.File.Close()
	got, err := io.ReadAll(r) // ends only when no duplicate is left
	if err != nil || string(got) != "through it" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestPassFileNeedsUnixSocket(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		fmt.Fprintln(theirs, qmptest.Greeting)
		_ = json.NewDecoder(theirs).Decode(new(json.RawMessage))
		fmt.Fprintln(theirs, `{"return": {}, "id": 1}`)
	}()
	client, err := qmp.New(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ExecuteFile(t.Context(), "getfd", nil, nil, os.Stdin); err == nil {
		t.Error("a file was passed through a pipe")
	}
}

// TestEnd ends the connection in several ways while a command waits.
func TestEnd(t *testing.T) {
	tests := []struct {
		name string
		end  func(*qmp.Client, *qmptest.Server)
		want string
	}{
		{"closed here", func(c *qmp.Client, _ *qmptest.Server) { c.Close() }, "by this side"},
		{"closed by QEMU", func(_ *qmp.Client, s *qmptest.Server) { s.Close() }, "EOF"},
		{"garbage", func(_ *qmp.Client, s *qmptest.Server) { s.Send("}{") }, "decode"},
		{"not a message", func(_ *qmp.Client, s *qmptest.Server) { s.Send(`{"a": 1}`) }, "neither reply nor event"},
		{"request rejected", func(_ *qmp.Client, s *qmptest.Server) {
			s.Send(`{"error": {"class": "GenericError", "desc": "JSON parse error"}}`)
		}, "JSON parse error"},
		{"line too long", func(_ *qmp.Client, s *qmptest.Server) {
			s.Send(`{"event": "` + strings.Repeat("x", qmp.MaxLine) + `"}`)
		}, "exceeds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := qmptest.Dial(t)
			events := client.Subscribe(1, nil)
			done := execute(t.Context(), client, "waits", nil)
			server.Expect("waits")
			tt.end(client, server)
			for _, err := range []error{<-done, client.Execute(t.Context(), "later", nil, nil), client.Err()} {
				if !errors.Is(err, qmp.ErrClosed) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
			}
			<-client.Done()
			if _, ok := <-events.C; ok {
				t.Error("an event after the end")
			}
			if _, ok := <-client.Subscribe(1, nil).C; ok {
				t.Error("a subscription after the end is open")
			}
		})
	}
}

func TestGreeting(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"no greeting", `{"event": "STOP"}`, "does not speak QMP"},
		{"no JSON", "SSH-2.0", "decode"},
		{"too long", strings.Repeat("x", qmp.MaxLine+1), "exceeds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, conn := qmptest.Pipe(t)
			go server.Send(tt.line)
			_, err := qmp.New(t.Context(), conn)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		server, conn := qmptest.Pipe(t)
		server.Close()
		if _, err := qmp.New(t.Context(), conn); !errors.Is(err, qmp.ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("negotiation refused", func(t *testing.T) {
		server, conn := qmptest.Pipe(t)
		done := make(chan error, 1)
		go func() {
			_, err := qmp.New(t.Context(), conn)
			done <- err
		}()
		server.Send(qmptest.Greeting)
		server.Refuse(server.Expect("qmp_capabilities"), "GenericError", "no")
		if err := <-done; !errors.Is(err, &qmp.Error{}) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		_, conn := qmptest.Pipe(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := qmp.New(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// TestGreetingTimeout needs no deadline of the caller's.
func TestGreetingTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		begin := time.Now()
		if _, err := qmp.New(t.Context(), ours); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != qmp.GreetingTimeout {
			t.Errorf("gave up after %v", took)
		}
	})
}
