package proxyv1_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// message is one message with this JSON.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(text))<<32), text...)
}

// FuzzServe: whatever a client sends it is answered or cut off, and others are served.
func FuzzServe(f *testing.F) {
	attach := message(`{"id":"attach","data":{"containerId":"pod"}}`)
	for _, text := range []string{
		`{"id":"allocateIO","data":{"nStreams":2}}`, `{"id":"hyper","data":{"hyperName":"ping"}}`,
		`{"id":"hyper","data":{"hyperName":"newcontainer","data":{"id":"c","process":{"stdio":1}}}}`,
		`{"id":"hyper","data":{"hyperName":"winsize","data":{"seq":1,"row":1,"column":1}}}`,
		`{"id":"hello","data":{"containerId":"x","ctlSerial":"/none","ioSerial":"/none"}}`,
		`{"id":"bye","data":{"containerId":"pod"}}`,
	} {
		f.Add(append(bytes.Clone(attach), message(text)...))
		f.Add(append(bytes.Clone(attach), append(message(`{"id":"allocateIO","data":{"nStreams":1}}`), message(text)...)...))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{255}, 8))
	f.Add(make([]byte, 8))
	socket, _ := start(f, hyperstart.DialectCCv2, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("Serial")) && bytes.Contains(data, []byte("hello")) && !bytes.Contains(data, []byte("/none")) {
			t.Skip("it could reach a socket of this machine")
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(hang))
		_, _ = conn.Write(data) // it may be cut off meanwhile
		_ = conn.(*net.UnixConn).CloseWrite()
		drain(t, conn.(*net.UnixConn))
		dial(t, socket).must(v1.MethodAttach, v1.Attach{ContainerID: "pod"})
	})
}

// drain reads until the proxy hangs up, and closes what files it sends.
func drain(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	data, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4*4))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
		if messages, parseErr := syscall.ParseSocketControlMessage(oob[:oobn]); parseErr == nil {
			for i := range messages {
				fds, _ := syscall.ParseUnixRights(&messages[i])
				for _, fd := range fds {
					_ = syscall.Close(fd)
				}
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the proxy neither answers nor hangs up")
		}
		if err != nil || n == 0 {
			return
		}
	}
}
