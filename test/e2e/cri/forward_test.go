//go:build e2e

package cri_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestPortForward connects to ports of the guest's loopback as containerd does
// for kubectl port-forward: to "localhost" in the pod's namespace on the host.
func TestPortForward(t *testing.T) {
	shared.Watch(t)
	pod := shared.RunPod(t, "forward", nil)
	pod.Start(t, "echo", "while :; do nc -l -p 7000 -e /bin/cat; done")
	pod.Start(t, "v4", "exec httpd -f -h /etc -p 127.0.0.1:7004")
	pod.Start(t, "v6", "exec httpd -f -h /etc -p [::1]:7006")
	pod.Start(t, "deaf", "exec nc -ll -p 7008 -e sleep 10000")
	wait := pod.Start(t, "wait", harness.Sleep)
	wait.WantOutput(t, "",
		"timeout", "10", "sh", "-c", "for p in 7000 7004 7006 7008; do until netstat -ltn | grep -q :$p; do sleep 0.1; done; done")
	t.Run("both ways", func(t *testing.T) { comesBack(t, dial(t, pod, 7000)) })
	t.Run("broken off", func(t *testing.T) { brokenOff(t, pod) })
	t.Run("broken off behind its end", func(t *testing.T) { brokenOffLate(t, pod, wait) })
	for family, port := range map[string]int{"v4": 7004, "v6": 7006} {
		t.Run(family, func(t *testing.T) {
			conn := dial(t, pod, port)
			if _, err := conn.Write([]byte("GET /passwd HTTP/1.0\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || !bytes.Contains(got, []byte("root:")) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		conn, err := connect(t, pod, 7002)
		if err != nil {
			return // broken off before connect has returned
		}
		defer func() { _ = conn.Close() }()
		if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("got %d bytes, %v; want a broken connection", n, err)
		}
	})
	dial(t, pod, 7000) // is open when the pod ends
	pod.Remove(t)
}

// brokenOff breaks a connection that does nothing, of which the server must know:
// it serves one at a time.
func brokenOff(t *testing.T, pod *harness.Pod) {
	for range 2 {
		conn := dial(t, pod, 7000)
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
			t.Fatal(err)
		}
		awaitEcho(t, pod)
	}
}

// brokenOffLate breaks nearly as many connections as there can be, whose clients
// have sent everything, to a server that waits for nothing. The shim lets go of them.
func brokenOffLate(t *testing.T, pod *harness.Pod, look *harness.PodContainer) {
	const many = 50
	shim := shared.AwaitProcess(t, harness.Shim, pod.ID)
	before := len(shim.FDs(t))
	var all []*net.TCPConn
	for range many {
		conn := dial(t, pod, 7008)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	look.WantOutput(t, "", "timeout", "60", "sh", "-c",
		fmt.Sprintf("until [ $(netstat -tn | grep -c ':7008 .*CLOSE_WAIT') = %d ]; do sleep 0.1; done", many))
	for _, conn := range all {
		if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	harness.Until(t, "descriptors as before", func() bool { return len(shim.FDs(t)) <= before })
}

// awaitEcho waits until the server that sends back what comes does so.
func awaitEcho(t *testing.T, pod *harness.Pod) {
	t.Helper()
	harness.Until(t, "the server waits for the next one", func() bool {
		conn, err := connect(t, pod, 7000)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err = conn.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		return err == nil
	})
}

// dial is connect to a port that has a listener.
func dial(t *testing.T, pod *harness.Pod, port int) *net.TCPConn {
	t.Helper()
	conn, err := connect(t, pod, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// connect connects to a port of localhost in the pod's namespace.
func connect(t *testing.T, pod *harness.Pod, port int) (*net.TCPConn, error) {
	t.Helper()
	netns, err := os.Open(pod.NetNS(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netns.Close() }()
	var conn *net.TCPConn
	err = osthread.RunInNetNS(netns, func() error {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", fmt.Sprintf("localhost:%d", port))
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// comesBack sends more than all buffers on the way and wants it back, and the end of
// the connection behind it.
func comesBack(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 256<<10)
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = conn.CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
