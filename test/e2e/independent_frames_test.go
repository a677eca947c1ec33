//go:build e2e

package e2e_test

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// Version 2. Types and opcodes as the document has them, in its order.
const (
	typeCommand, typeResponse, typeStream, typeNotification = 0, 1, 2, 3

	attachVM, hyperCommand, connectShim, disconnectShim, signalCommand = 2, 3, 4, 5, 6
	unregisterVM                                                       = 1

	stdinStream, stdoutStream, stderrStream, logStream = 0, 1, 2, 3
)

// header is a frame's header, whose length is 3 words.
func header(kind, opcode byte, length int) []byte {
	h := []byte{0, 2, 3, 0, 0, 0, kind, opcode}
	return binary.BigEndian.AppendUint32(h, uint32(length))
}

func writeFrame(t *testing.T, conn net.Conn, kind, opcode byte, payload string) {
	t.Helper()
	if _, err := conn.Write(append(header(kind, opcode, len(payload)), payload...)); err != nil {
		t.Fatal(err)
	}
}

// readFrame returns the kind with the error flag, the opcode and the payload.
func readFrame(t *testing.T, conn net.Conn) (kind, opcode byte, payload string) {
	t.Helper()
	h := make([]byte, 12)
	if _, err := io.ReadFull(conn, h); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h[:6], []byte{0, 2, 3, 0, 0, 0}) {
		t.Fatalf("header %x", h)
	}
	b := make([]byte, binary.BigEndian.Uint32(h[8:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	return h[6], h[7], string(b)
}

// askFrame sends a command and wants this answer, "" for any that is no error. It must be the next frame.
func askFrame(t *testing.T, conn net.Conn, command byte, payload, want string) string {
	t.Helper()
	writeFrame(t, conn, typeCommand, command, payload)
	kind, opcode, got := readFrame(t, conn)
	failed := strings.HasPrefix(want, `{"msg"`)
	wantKind := byte(typeResponse)
	if failed {
		wantKind |= 0x10
	}
	if kind != wantKind || opcode != command || want != "" && got != want {
		t.Errorf("%d %s: answered %x %d %q, want %q", command, payload, kind, opcode, got, want)
	}
	return got
}

// attached returns a runtime's connection with a token, and where shims connect.
func attachedRuntime(t *testing.T, socket string) (conn net.Conn, token string) {
	t.Helper()
	conn = dialUnix(t, socket)
	var answer struct {
		IO struct {
			URL    string
			Tokens []string
		}
	}
	text := askFrame(t, conn, attachVM, `{"containerId":"independent","numIOStreams":1}`, "")
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.IO.Tokens) != 1 || len(answer.IO.Tokens[0]) != 44 || answer.IO.URL != "unix://"+socket {
		t.Fatalf("%s, %v", text, err)
	}
	return conn, answer.IO.Tokens[0]
}

// execute is the command for a process, for either version.
func execute(script, more string) string {
	args, err := json.Marshal([]string{"sh", "-c", script})
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"container":"independent","process":{"args":%s,"envs":[{"env":"PATH","value":"/bin"}],"workdir":"/"%s}}`, args, more)
}

// started returns the connection of a shim whose process runs. The shim does not wait for answers.
func startedShim(t *testing.T, socket, script, more string) (shim net.Conn, token string) {
	t.Helper()
	runtime, token := attachedRuntime(t, socket)
	shim = dialUnix(t, socket)
	askFrame(t, shim, connectShim, `{"token":"`+token+`"}`, "")
	askFrame(t, runtime, hyperCommand, fmt.Sprintf(`{"hyperName":"execcmd","tokens":[%q],"data":%s}`, token, execute(script, more)), "")
	return shim, token
}

// collect reads the streams of a shim until the exit of its process, and disconnects.
func collect(t *testing.T, shim net.Conn) (stdout, stderr string, status byte) {
	t.Helper()
	var out [4]strings.Builder
	for {
		kind, opcode, payload := readFrame(t, shim)
		switch {
		case kind == typeStream && (opcode == stdoutStream || opcode == stderrStream) && payload != "":
			out[opcode].WriteString(payload)
		case kind == typeResponse && payload == "":
		case kind == typeNotification && opcode == 0 && len(payload) == 1:
			writeFrame(t, shim, typeCommand, disconnectShim, "")
			if n, err := shim.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
				t.Errorf("after DisconnectShim: %d bytes, %v", n, err)
			}
			return out[stdoutStream].String(), out[stderrStream].String(), payload[0]
		default:
			t.Fatalf("%s of %d: %.200q", []string{"command", "response", "stream", "notification"}[kind&3], opcode, payload)
		}
	}
}

// input is 1 MiB, whose sum both ends know.
var input = strings.Repeat("0123456789abcdef", 1<<16)

// much writes 4 MiB after it has read all input.
const much = `md5sum; head -c 4194304 /dev/zero | tr '\0' x; echo to stderr >&2; exit 42`

func wantMuch(t *testing.T, stdout, stderr string, status byte) {
	t.Helper()
	want := fmt.Sprintf("%x  -\n", md5.Sum([]byte(input))) + strings.Repeat("x", 4<<20)
	if stdout != want || stderr != "to stderr\n" || status != 42 {
		t.Errorf("stdout of %d bytes beginning with %.40q, want %d; stderr %q, status %d", len(stdout), stdout, len(want), stderr, status)
	}
}

// framesRun: input in blocks of 8192 bytes and an empty one at the end, as from the original shim.
func framesRun(t *testing.T, socket string) {
	shim, _ := startedShim(t, socket, much, "")
	go func() {
		for rest := input; ; {
			n := min(len(rest), 8192)
			if _, err := shim.Write(append(header(typeStream, stdinStream, n), rest[:n]...)); err != nil || n == 0 {
				return
			}
			rest = rest[n:]
		}
	}()
	stdout, stderr, status := collect(t, shim)
	wantMuch(t, stdout, stderr, status)
}

// framesContainer is a container of its own, with the keys of the original runtime, on the files of the pod's.
func framesContainer(t *testing.T, socket string) {
	runtime, token := attachedRuntime(t, socket)
	shim := dialUnix(t, socket)
	askFrame(t, shim, connectShim, `{"token":"`+token+`"}`, "")
	const container = `{"id":"original","rootfs":"rootfs","image":"independent","process":{"user":"0","group":"0","terminal":false,"args":["/bin/sh","-c","cat /proc/1/comm; exec sleep 100"],` +
		`"envs":[{"env":"PATH","value":"/bin"}],"workdir":"/","noNewPrivileges":false,"capabilities":{"bounding":null,"effective":null,"inheritable":null,"permitted":null,"ambient":null}},` +
		`"restartPolicy":"","initialize":false,"systemMountsInfo":{"bindMountDev":false,"devShmSize":0},"constraints":{"CPUQuota":0,"CPUPeriod":0}}`
	askFrame(t, runtime, hyperCommand, fmt.Sprintf(`{"hyperName":"newcontainer","tokens":[%q],"data":%s}`, token, container), "")
	if _, _, payload := readFrame(t, shim); payload != "sh\n" {
		t.Errorf("%q", payload)
	}
	writeFrame(t, shim, typeCommand, signalCommand, `{"signalNumber":9}`)
	if _, _, status := collect(t, shim); status != 137 {
		t.Errorf("status %d", status)
	}
	askFrame(t, runtime, hyperCommand, `{"hyperName":"removecontainer","tokens":null,"data":{"container":"original"}}`, "")
	missing := strings.Replace(container, "/bin/sh", "/none", 1)
	askFrame(t, runtime, hyperCommand, `{"hyperName":"newcontainer","tokens":null,"data":`+missing+`}`,
		`{"msg":"ERROR received from VM agent, control msg received : exec: \"/none\": stat /none: no such file or directory"}`)
}

func framesTerminal(t *testing.T, socket string) {
	shim, _ := startedShim(t, socket, `read line; stty size; exit 7`, `,"terminal":true`)
	// The text of the original shim, with its blanks, and twice, as it comes from there.
	for range 2 {
		writeFrame(t, shim, typeCommand, signalCommand, `{"signalNumber": 28, "rows":40, "columns":100}`)
	}
	writeFrame(t, shim, typeStream, stdinStream, "go\r")
	stdout, stderr, status := collect(t, shim)
	if !strings.Contains(stdout, "40 100\r\n") || stderr != "" || status != 7 {
		t.Errorf("stdout %q, stderr %q, status %d", stdout, stderr, status)
	}
}

func framesSignal(t *testing.T, socket string) {
	shim, _ := startedShim(t, socket, `trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done`, "")
	if kind, opcode, payload := readFrame(t, shim); kind != typeStream || opcode != stdoutStream || payload != "ready\n" {
		t.Fatalf("%d %d %q", kind, opcode, payload)
	}
	writeFrame(t, shim, typeCommand, signalCommand, `{"signalNumber":15}`)
	if stdout, _, status := collect(t, shim); stdout != "got it\n" || status != 3 {
		t.Errorf("stdout %q, status %d", stdout, status)
	}
}

// framesReconnect: a shim that dies within a frame comes back with its token, and nothing is lost but that frame.
func framesReconnect(t *testing.T, socket string) {
	shim, token := startedShim(t, socket, `while read line; do echo "got $line"; done; exit 9`, "")
	writeFrame(t, shim, typeStream, stdinStream, "one\n")
	if _, _, payload := readFrame(t, shim); payload != "got one\n" {
		t.Fatalf("%q", payload)
	}
	for _, part := range [][]byte{header(typeStream, stdinStream, 10)[:7], append(header(typeStream, stdinStream, 10), "half"...)} {
		if _, err := shim.Write(part); err != nil {
			t.Fatal(err)
		}
		_ = shim.Close()
		next := dialUnix(t, socket)
		for answer := `{"msg":"token already claimed: ` + token + `"}`; answer != ""; { // until the proxy has noticed
			writeFrame(t, next, typeCommand, connectShim, `{"token":"`+token+`"}`)
			kind, _, got := readFrame(t, next)
			if kind != typeResponse && got != answer {
				t.Fatalf("%d %s", kind, got)
			}
			answer = got
		}
		shim = next
	}
	writeFrame(t, shim, typeStream, stdinStream, "two\n")
	writeFrame(t, shim, typeStream, stdinStream, "")
	if stdout, _, status := collect(t, shim); stdout != "got two\n" || status != 9 {
		t.Errorf("stdout %q, status %d", stdout, status)
	}
}

// framesAnswers are answers byte for byte.
func framesAnswers(t *testing.T, socket string) {
	conn := dialUnix(t, socket)
	askFrame(t, conn, hyperCommand, `{"hyperName":"ping","tokens":null}`, `{"msg":"client not attached to a vm"}`)
	askFrame(t, conn, attachVM, ``, `{"msg":"unexpected end of JSON input"}`)
	askFrame(t, conn, attachVM, `{"containerId":"nope"}`, `{"msg":"unknown containerID: nope"}`)
	askFrame(t, conn, attachVM, `{"containerId":"independent"}`, `{"io":{"URL":"unix://`+socket+`","tokens":null}}`)
	askFrame(t, conn, hyperCommand, `{"hyperName":"ping","tokens":null}`, "")
	askFrame(t, conn, hyperCommand, `{"hyperName":"x","tokens":null}`, `{"msg":"unknown command 'x'"}`)
	askFrame(t, conn, hyperCommand, `{"hyperName":"ping","tokens":["T"]}`, `{"msg":"ping doesn't need tokens but 1 token(s) were given"}`)
	askFrame(t, conn, connectShim, `{"token":"AAAA"}`, `{"msg":"unknown token: AAAA"}`)
	askFrame(t, conn, signalCommand, `{"signalNumber":15}`, `{"msg":"client isn't a shim"}`)
	askFrame(t, conn, disconnectShim, ``, `{"msg":"client isn't a shim"}`)
	got := askFrame(t, conn, hyperCommand, `{"hyperName":"killcontainer","tokens":null,"data":{"container":"nope","signal":9}}`, `{"msg":"ERROR received from VM agent, control msg received : no container nope"}`)
	if strings.Contains(got, `"class"`) {
		t.Errorf("a key that the original has not: %s", got)
	}
	var pids []int
	list := askFrame(t, conn, hyperCommand, `{"hyperName":"pscontainer","tokens":null,"data":{"container":"independent","format":"json","psargs":[]}}`, "")
	if err := json.Unmarshal([]byte(list), &pids); err != nil || len(pids) != 1 {
		t.Fatalf("%s, %v", list, err)
	}
	table := fmt.Sprintf("PID   USER     COMMAND\n%5d root     sleep 3600\n", pids[0])
	askFrame(t, conn, hyperCommand, `{"hyperName":"pscontainer","tokens":null,"data":{"container":"independent","format":"table","psargs":[]}}`, table)
	full := askFrame(t, conn, hyperCommand, `{"hyperName":"pscontainer","tokens":null,"data":{"container":"independent","format":"table","psargs":["-ef"]}}`, "")
	if lines := strings.Split(full, "\n"); len(lines) != 3 || lines[0] != "UID        PID  PPID  C STIME TTY          TIME CMD" || !strings.HasSuffix(lines[1], "00:00:00 sleep 3600") {
		t.Errorf("%q", full)
	}
	const said = "said by an independent client"
	writeFrame(t, conn, typeStream, logStream, `{"source":"runtime","level":"warn","msg":"`+said+`","containerId":"independent"}`)
	askFrame(t, conn, unregisterVM, `{"containerId":"independent"}`, "")
	harness.Until(t, "what a client said for the log is in containerd's", func() bool { return strings.Contains(shared.Log(), said) })
	askFrame(t, dialUnix(t, socket), attachVM, `{"containerId":"independent"}`, "") // it is still there
}
