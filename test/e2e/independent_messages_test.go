//go:build e2e

package e2e_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// Version 1.

func writeMessage(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	head := make([]byte, 8)
	binary.BigEndian.PutUint32(head, uint32(len(text)))
	for _, b := range [][]byte{head, []byte(text)} { // two writes, as the original client
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

func readMessage(t *testing.T, conn net.Conn) string {
	t.Helper()
	head := make([]byte, 8)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(conn, text); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func askMessage(t *testing.T, conn net.Conn, request, want string) string {
	t.Helper()
	writeMessage(t, conn, request)
	got := readMessage(t, conn)
	if want != "" && got != want {
		t.Errorf("%s: answered %s, want %s", request, got, want)
	}
	return got
}

// allocate returns streams with the numbers from base on.
func allocateStreams(t *testing.T, conn *net.UnixConn, n int) (streams net.Conn, base uint64) {
	t.Helper()
	var answer struct {
		Success bool
		Data    struct{ IOBase uint64 }
	}
	text := askMessage(t, conn, fmt.Sprintf(`{"id":"allocateIO","data":{"nStreams":%d}}`, n), "")
	if err := json.Unmarshal([]byte(text), &answer); err != nil || !answer.Success || answer.Data.IOBase == 0 {
		t.Fatalf("%s, %v", text, err)
	}
	b, oob := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	_, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil || b[0] != 'F' {
		t.Fatalf("%q, %v", b, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	return connOf(t, fds[0]), answer.Data.IOBase
}

func writeTTY(conn net.Conn, seq uint64, payload string) error {
	b := binary.BigEndian.AppendUint64(nil, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(12+len(payload)))
	_, err := conn.Write(append(b, payload...))
	return err
}

// collectTTY reads messages until the exit, an empty message and one of one byte.
func collectTTY(t *testing.T, conn net.Conn, base uint64) (stdout, stderr string, status byte) {
	t.Helper()
	var out [2]strings.Builder
	for ended := false; ; {
		head := make([]byte, 12)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		seq, length := binary.BigEndian.Uint64(head), binary.BigEndian.Uint32(head[8:])
		if length < 12 || length > 10240 || seq < base || seq > base+1 {
			t.Fatalf("a message of %d bytes for %d, not for %d", length, seq, base)
		}
		payload := make([]byte, length-12)
		if _, err := io.ReadFull(conn, payload); err != nil {
			t.Fatal(err)
		}
		if ended {
			if seq != base || len(payload) != 1 {
				t.Fatalf("exit %q of %d", payload, seq)
			}
			return out[0].String(), out[1].String(), payload[0]
		}
		ended = len(payload) == 0 && seq == base
		out[seq-base].Write(payload)
	}
}

const attachMessage = `{"id":"attach","data":{"containerId":"independent"}}`

func messagesRun(t *testing.T, socket string) {
	conn := dialUnix(t, socket)
	askMessage(t, conn, attachMessage, `{"success":true,"data":{"version":1}}`)
	streams, base := allocateStreams(t, conn, 2)
	numbers := fmt.Sprintf(`,"terminal":false,"stdio":%d,"stderr":%d`, base, base+1)
	askMessage(t, conn, `{"id":"hyper","data":{"hyperName":"execcmd","data":`+execute(much, numbers)+`}}`, `{"success":true}`)
	_ = conn.Close() // the shim has the streams
	go func() {
		for rest := input; ; {
			n := min(len(rest), 8192)
			if writeTTY(streams, base, rest[:n]) != nil || n == 0 {
				return
			}
			rest = rest[n:]
		}
	}()
	stdout, stderr, status := collectTTY(t, streams, base)
	wantMuch(t, stdout, stderr, status)
}

func messagesTerminal(t *testing.T, socket string) {
	conn, shim := dialUnix(t, socket), dialUnix(t, socket)
	askMessage(t, conn, attachMessage, "")
	askMessage(t, shim, attachMessage, "")
	streams, base := allocateStreams(t, conn, 1)
	askMessage(t, conn, `{"id":"hyper","data":{"hyperName":"execcmd","data":`+execute(`read line; stty size; exit 7`, fmt.Sprintf(`,"terminal":true,"stdio":%d`, base))+`}}`, `{"success":true}`)
	askMessage(t, shim, fmt.Sprintf(`{"id":"hyper","data":{"hyperName":"winsize","data":{"seq":%d,"row":40,"column":100}}}`, base), `{"success":true}`)
	if err := writeTTY(streams, base, "go\r"); err != nil {
		t.Fatal(err)
	}
	if stdout, _, status := collectTTY(t, streams, base); !strings.Contains(stdout, "40 100\r\n") || status != 7 {
		t.Errorf("stdout %q, status %d", stdout, status)
	}
}

func messagesAnswers(t *testing.T, socket string) {
	conn := dialUnix(t, socket)
	for request, answer := range map[string]string{
		`{"id":""}`: "no 'id' field in request", `{"id":"x"}`: "no payload named 'x'", `{"id":"attach"}`: "unexpected end of JSON input",
		`{"id":"attach","data":{"containerId":"nope"}}`:                                        "unknown containerID: nope",
		`{"id":"bye","data":{"containerId":"nope"}}`:                                           "unknown containerID: nope",
		`{"id":"hello","data":{"containerId":"nope"}}`:                                         "malformed hello command",
		`{"id":"allocateIO","data":{"nStreams":1}}`:                                            "client not attached to a vm",
		`{"id":"allocateIO","data":{"nStreams":3}}`:                                            "asking for unexpected number of streams (3)",
		`{"id":"hyper","data":{"hyperName":"ping"}}`:                                           "client not attached to a vm",
		`{"id":"hello","data":{"containerId":"independent","ctlSerial":"/c","ioSerial":"/i"}}`: "independent: container already registered",
	} {
		askMessage(t, conn, request, fmt.Sprintf(`{"success":false,"error":%q}`, answer))
	}
	askMessage(t, conn, attachMessage, `{"success":true,"data":{"version":1}}`)
	askMessage(t, conn, `{"id":"hyper","data":{"hyperName":"killcontainer","data":{"container":"nope","signal":9}}}`,
		`{"success":false,"error":"ERROR received from VM agent, control msg received : no container nope"}`)
	streams, base := allocateStreams(t, conn, 2)
	if err := writeTTY(streams, base+1, "not mine"); err != nil {
		t.Fatal(err)
	}
	if n, err := streams.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("input for another number: %d bytes, %v", n, err)
	}
	askMessage(t, conn, `{"id":"bye","data":{"containerId":"independent"}}`, `{"success":true}`)
	askMessage(t, dialUnix(t, socket), attachMessage, `{"success":true,"data":{"version":1}}`) // it is still there
}

// connOf is the connection of a descriptor that was received.
func connOf(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "streams")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	return conn
}
