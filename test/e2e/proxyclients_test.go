//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// TestProxyClients: clients of the original proxy, in both versions of its protocol, run a process in a
// container of this shim, as the originals describe one.
func TestProxyClients(t *testing.T) {
	shared.Watch(t)
	task := shared.Running(t, "proxied", harness.Streams{}, []string{"sleep", "3600"})
	dial := func() net.Conn {
		conn, err := net.Dial("unix", filepath.Join(shared.StateDir(), shared.Namespace, "proxied", "vm", "proxy.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		return conn
	}
	t.Run("version 1", func(t *testing.T) { version1(t, dial) })
	t.Run("version 2", func(t *testing.T) { version2(t, dial) })
	if out, status := shared.Output(t, task, "after", "echo", "goes on"); out != "goes on\n" || status != 0 {
		t.Errorf("afterwards: %q, status %d", out, status)
	}
	shared.KillTask(t, task)
}

// program is what both run; %d are sequence numbers, 0 for a proxy that gives them itself.
const program = `{"container":"proxied","process":{"args":["sh","-c","cat; echo to stderr >&2; exit 42"],"envs":[{"env":"A","value":"b"}],"workdir":"/tmp","terminal":false%s}}`

func version1(t *testing.T, dial func() net.Conn) {
	conn := dial()
	r, w := v1.NewReader(conn), v1.NewWriter(conn)
	must := func(m v1.Method, data, result any) {
		t.Helper()
		if err := w.WriteRequest(m, data); err != nil {
			t.Fatal(err)
		}
		answer, err := r.ReadResponse()
		if err == nil {
			err = answer.Err()
		}
		if err == nil && result != nil {
			err = answer.Decode(result)
		}
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
	}
	must(v1.MethodAttach, v1.Attach{ContainerID: "proxied"}, nil)
	var io v1.AllocateIOResult
	must(v1.MethodAllocateIO, v1.AllocateIO{NStreams: 2}, &io)
	streams, err := v1.ReceiveFile(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = streams.Close() }()
	numbers := fmt.Sprintf(`,"stdio":%d,"stderr":%d`, io.IOBase, io.IOBase+1)
	must(v1.MethodHyper, v1.Hyper{HyperName: "execcmd", Data: json.RawMessage(fmt.Sprintf(program, numbers))}, nil)
	for _, text := range []string{"to stdin", ""} {
		if _, err := streams.Write(hyperstart.AppendTTY(nil, io.IOBase, []byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	messages := hyperstart.NewTTYReader(streams)
	var got [2]string
	for ended := false; ; {
		seq, payload, err := messages.Read()
		if err != nil || seq < io.IOBase || seq > io.IOBase+1 {
			t.Fatalf("message of %d, %v", seq, err)
		}
		if ended {
			if string(payload) != "\x2a" {
				t.Errorf("exit status %q", payload)
			}
			break
		}
		ended = len(payload) == 0
		got[seq-io.IOBase] += string(payload)
	}
	if got != [2]string{"to stdin", "to stderr\n"} {
		t.Errorf("output %q", got)
	}
}

func version2(t *testing.T, dial func() net.Conn) {
	runtime, shim := dial(), dial()
	ask := func(conn net.Conn, cmd proxyproto.Command, payload any) []byte {
		t.Helper()
		if err := proxyproto.NewWriter(conn).WriteCommand(cmd, payload); err != nil {
			t.Fatal(err)
		}
		f, err := proxyproto.NewReader(conn).ReadFrame()
		if err != nil || f.Type != proxyproto.TypeResponse || f.Error {
			t.Fatalf("%s: %s %s, %v", cmd, f, f.Payload, err)
		}
		return f.Payload
	}
	var attached proxyproto.AttachVMResponse
	answer := ask(runtime, proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "proxied", NumIOStreams: 1})
	if err := json.Unmarshal(answer, &attached); err != nil || len(attached.IO.Tokens) != 1 {
		t.Fatalf("%s, %v", answer, err)
	}
	token := attached.IO.Tokens[0]
	ask(shim, proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: token})
	ask(runtime, proxyproto.CmdHyper, proxyproto.Hyper{HyperName: "execcmd", Tokens: []string{token}, Data: json.RawMessage(fmt.Sprintf(program, ""))})
	w := proxyproto.NewWriter(shim)
	for _, text := range []string{"to stdin", ""} {
		if err := w.WriteStream(proxyproto.StreamStdin, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[proxyproto.Stream]string)
	r := proxyproto.NewReader(shim)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == proxyproto.TypeNotification {
			if string(f.Payload) != "\x2a" {
				t.Errorf("exit status %q", f.Payload)
			}
			break
		}
		got[f.Stream()] += string(f.Payload)
	}
	if got[proxyproto.StreamStdout] != "to stdin" || got[proxyproto.StreamStderr] != "to stderr\n" {
		t.Errorf("output %q", got)
	}
}
