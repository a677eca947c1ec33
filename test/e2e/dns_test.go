//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// answerTo answers each question for an IPv4 address with 192.0.2.7, and others with
// nothing.
func answerTo(question []byte) []byte {
	end := bytes.IndexByte(question[12:], 0) + 12 + 5 // behind name, type and class
	answer := bytes.Clone(question[:end])
	const response, typeA = 0x8180, 1
	binary.BigEndian.PutUint16(answer[2:], response)
	clear(answer[6:12])
	if binary.BigEndian.Uint16(answer[end-4:]) != typeA {
		return answer
	}
	answer[7] = 1 // one answer: the name of the question, A, IN, a minute
	return append(answer, 0xc0, 12, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
}

// nameServer serves both protocols at 127.0.0.11 in the namespace, as the Engine of
// Docker does, and TCP on port 54, too.
func (n netns) nameServer() {
	const address = "127.0.0.11"
	n.tb.Helper()
	n.ip("link set lo up")
	var udp net.PacketConn
	var listeners []net.Listener
	n.inside(func() (err error) {
		var lc net.ListenConfig
		if udp, err = lc.ListenPacket(context.Background(), "udp4", address+":53"); err != nil {
			return err
		}
		for _, port := range []string{"53", "54"} {
			l, err := lc.Listen(context.Background(), "tcp4", net.JoinHostPort(address, port))
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
		return nil
	})
	n.tb.Cleanup(func() { _ = udp.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			size, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(answerTo(buf[:size]), from)
		}
	}()
	for _, l := range listeners {
		n.tb.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				var length [2]byte
				_, _ = io.ReadFull(conn, length[:])
				question := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(conn, question); err == nil {
					answer := answerTo(question)
					_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
				}
				_ = conn.Close()
			}
		}()
	}
}

// resolvConf makes a file with text, and what mounts it.
func resolvConf(t *testing.T, text string) (path string, opt oci.SpecOpts) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path, oci.WithMounts([]specs.Mount{{Type: "bind", Source: path, Destination: "/etc/resolv.conf", Options: []string{"rbind", "rw"}}})
}

// askTCP asks for the address of "web.test" over TCP, and prints the last bytes of the
// answer.
func askTCP(port int) string {
	return fmt.Sprintf(`printf '\000\032\001\002\001\000\000\001\000\000\000\000\000\000\003web\004test\000\000\001\000\001' | nc -w 20 127.0.0.11 %d | tail -c 4 | od -An -tu1`, port)
}

// TestNameServerOfTheNamespace: a name server on the loopback of the pod's namespace, as
// Docker has one for its networks, is the container's, for both protocols.
func TestNameServerOfTheNamespace(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		ns := newNetns(t)
		ns.nameServer()
		_, mounted := resolvConf(t, "nameserver 127.0.0.11\n")
		var out harness.Buffer
		script := `for i in 1 2 3; do nslookup web.test 127.0.0.11 | tail -n +4 | grep -o 192.0.2.7; done; ` + askTCP(53)
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"sh", "-c", script}, ns.with(), mounted)
		shared.Finish(t, task)
		want := "192.0.2.7 192.0.2.7 192.0.2.7 192 0 2 7"
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("the container found %q, want %q", got, want)
		}
	})
}

// TestNameServerLater: one that becomes the container's with another network, as `docker
// network connect` makes it.
func TestNameServerLater(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		ns := newNetns(t)
		ns.nameServer()
		path, mounted := resolvConf(t, "nameserver 192.0.2.1\n")
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, ns.with(), mounted)
		if err := os.WriteFile(path, []byte("nameserver 127.0.0.11\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		ns.ip("link add eth1 type veth peer name peer1")
		ns.ip("link set eth1 up")
		harness.Until(t, "the name server answers", func() bool {
			out, _ := shared.Output(t, task, "ask", "sh", "-c", askTCP(53))
			return strings.Join(strings.Fields(out), " ") == "192 0 2 7"
		})
		shared.KillTask(t, task)
	})
}

// TestNothingElseOfTheNamespace: no other port and no other address of that loopback is in
// a guest's reach, port 53 is the container's own, and a server that is not there has an
// answer at once.
func TestNothingElseOfTheNamespace(t *testing.T) {
	shared.Watch(t)
	ns := newNetns(t)
	ns.nameServer()
	_, mounted := resolvConf(t, "nameserver 127.0.0.11\nnameserver 127.0.0.12\n")
	task := shared.Running(t, "dns", harness.Streams{}, []string{"sleep", "1000"}, ns.with(), mounted)
	for script, want := range map[string]string{
		askTCP(53):           "192 0 2 7",
		askTCP(54) + ` 2>&1`: "",
		`nslookup web.test 127.0.0.13 >/dev/null 2>&1 || echo nobody`:                             "nobody",
		`nslookup web.test 127.0.0.12 2>&1 | grep -o SERVFAIL | head -n 1`:                        "SERVFAIL",
		`nc -l -p 53 -e /bin/echo own & until nc -w 5 127.0.0.1 53 2>/dev/null; do :; done; wait`: "own",
	} {
		out, _ := shared.Output(t, task, "ask", "sh", "-c", script)
		if got := strings.Join(strings.Fields(out), " "); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	shared.KillTask(t, task)
}

// TestNameServerOfAnotherNamespace: in a network namespace that a container makes, as a
// container engine does, the address is what listens there.
func TestNameServerOfAnotherNamespace(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		ns := newNetns(t)
		ns.nameServer()
		_, mounted := resolvConf(t, "nameserver 127.0.0.11\n")
		var out harness.Buffer
		script := `unshare -n sh -c 'ip link set lo up
			nc -l -p 53 -e /bin/echo own & i=0
			until nc -w 5 127.0.0.11 53 2>/dev/null || [ $((i += 1)) -gt 20000 ]; do :; done; kill $! 2>/dev/null'; ` + askTCP(53)
		task := shared.RunningOn(t, runtime, id, harness.Streams{Stdout: &out, Stderr: os.Stderr}, []string{"sh", "-c", script}, ns.with(), mounted, oci.WithPrivileged)
		shared.Finish(t, task)
		if got := strings.Join(strings.Fields(out.String()), " "); got != "own 192 0 2 7" {
			t.Errorf("the container found %q", got)
		}
	})
}
