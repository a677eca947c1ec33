//go:build e2e

package e2e_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// What is here speaks to the proxy's socket by what the protocols' documents say, without the packages of this
// project, which may be wrong in the same way at both ends.

// TestIndependentClients does what the programs of Clear Containers do, with a container of a real pod.
func TestIndependentClients(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "independent", harness.Streams{}, []string{"sleep", "3600"})
	socket := filepath.Join(shared.StateDir(), shared.Namespace, "independent", "vm", "proxy.sock")
	for name, test := range map[string]func(*testing.T, string){
		"Frames": framesRun, "FramesContainer": framesContainer, "FramesTerminal": framesTerminal, "FramesSignal": framesSignal, "FramesReconnect": framesReconnect,
		"FramesAnswers": framesAnswers, "Messages": messagesRun, "MessagesTerminal": messagesTerminal, "MessagesAnswers": messagesAnswers, "Bad": badClients,
	} {
		t.Run(name, func(t *testing.T) { test(t, socket) })
	}
	if out, status := shared.Output(t, task, "after", "echo", "goes on"); out != "goes on\n" || status != 0 {
		t.Errorf("afterwards: %q, status %d", out, status)
	}
	shared.KillTask(t, task)
}

func dialUnix(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	return conn.(*net.UnixConn)
}

// badClients: each is cut off or gets an error, and the pod serves others, in both versions.
func badClients(t *testing.T, socket string) {
	good1, good2 := dialUnix(t, socket), dialUnix(t, socket)
	askMessage(t, good1, attachMessage, "")
	askFrame(t, good2, attachVM, `{"containerId":"independent"}`, "")
	check := func(what string) {
		t.Helper()
		askMessage(t, good1, `{"id":"hyper","data":{"hyperName":"ping"}}`, `{"success":true}`)
		askFrame(t, good2, hyperCommand, `{"hyperName":"ping","tokens":null}`, "")
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}
	for name, data := range map[string]string{
		"nothing": "", "one byte": "\x00", "text": "GET / HTTP/1.1\r\n\r\n", "random": "\x8f\x12\x99\x01\x77\xfe\x00\x21\x44\x10\x98\x76\x54\x32",
		"frame, half a header": "\x00\x02\x03\x00\x00\x00\x00", "frame, 4 GiB": string(header(typeCommand, attachVM, -1)), "frame, short header": "\x00\x02\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00",
		"frame, no such type": string(header(7, 0, 0)), "frame, no such command": string(header(typeCommand, 99, 0)), "frame, a response": string(header(typeResponse, attachVM, 0)),
		"frame, half a payload": string(header(typeCommand, attachVM, 100)) + "{", "frame, stdin of nobody": string(header(typeStream, stdinStream, 0)), "frame, a log of nobody": string(header(typeStream, logStream, 0)),
		"message, half a header": "\x00\x00\x00\x05\x00", "message, 4 GiB": "\x00\x00\x00\x02\x00\x00\x00\x00{}\xff\xff\xff\xff\x00\x00\x00\x00", "message, no JSON": "\x00\x00\x00\x03\x00\x00\x00\x00abc",
		"message, half": "\x00\x00\x00\x20\x00\x00\x00\x00{", "message, too long": "\x00\x00\x00\x02\x00\x00\x00\x00{}\x0f\xff\xff\xff\x00\x00\x00\x00{",
	} {
		conn := dialUnix(t, socket)
		if _, err := conn.Write([]byte(data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = conn.CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		check(name)
	}
	foreign := strings.Repeat("A", 43) + "="
	askFrame(t, dialUnix(t, socket), connectShim, `{"token":"`+foreign+`"}`, `{"msg":"unknown token: `+foreign+`"}`)
	var all []net.Conn
	for n := range 2000 {
		conn := dialUnix(t, socket)
		if all = append(all, conn); n%2 == 0 {
			askMessage(t, conn, attachMessage, `{"success":true,"data":{"version":1}}`)
		} else {
			askFrame(t, conn, attachVM, `{"containerId":"independent"}`, "")
		}
	}
	check("1,000 connections of each version")
	for _, conn := range all {
		_ = conn.Close()
	}
	check("their end")
}
