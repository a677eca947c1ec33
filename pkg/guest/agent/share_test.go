package agent_test

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// virtiofsd returns a running file server for dir; it ends with the test.
func virtiofsd(t *testing.T, dir string) (socket string) {
	t.Helper()
	binary := filepath.Join("..", "..", "..", "build", "virtiofsd", "virtiofsd")
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("%v: build it with `make virtiofsd`", err)
	}
	socket = filepath.Join(t.TempDir(), "fs.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	must(t, err)
	defer f.Close()
	cmd := exec.Command(binary, "--fd=3", "--shared-dir="+dir, "--sandbox=chroot")
	cmd.ExtraFiles = []*os.File{f}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return socket
}

// plugShare plugs a file system device in through the monitor.
func (v *vm) plugShare(conn net.Conn, socket, tag string) {
	v.t.Helper()
	for _, command := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": "chardev-add", "arguments": map[string]any{"id": "fs", "backend": map[string]any{
			"type": "socket", "data": map[string]any{"server": false, "addr": map[string]any{
				"type": "unix", "data": map[string]any{"path": socket},
			}},
		}}},
		{"execute": "device_add", "arguments": map[string]any{"driver": "vhost-user-fs-pci", "id": "fs", "chardev": "fs", "tag": tag, "bus": "slot0"}},
	} {
		must(v.t, json.NewEncoder(conn).Encode(command))
	}
	go func() { // replies are only shown: a failed command fails the mount
		for s := bufio.NewScanner(conn); s.Scan(); {
			if json.Valid(s.Bytes()) && len(s.Bytes()) > 0 {
				_, _ = v.console.Write(append(s.Bytes(), '\n'))
			}
		}
	}()
}

// TestShare plugs a virtiofs device in after STARTPOD was sent and runs a
// container from it.
func TestShare(t *testing.T) {
	artefacts(t, usualGuest)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "root/bin"), 0o755))
	for _, d := range []string{"proc", "dev", "tmp"} {
		must(t, os.Mkdir(filepath.Join(dir, "root", d), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	b, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "root/bin/sh"), b, 0o755))
	socket := virtiofsd(t, dir)
	qmp := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", qmp)
	must(t, err)
	defer l.Close()
	v := boot(t, "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-numa", "node,memdev=mem",
		"-device", "pcie-root-port,id=slot0,chassis=1,slot=1", "-qmp", "unix:"+qmp)
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()

	if e := v.fail(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "p", ShareDir: "tag", ShareType: "nfs"}); e.Class != hyperstart.ClassInvalidArgument {
		t.Errorf("unknown share type: %+v", e)
	}
	started := v.begin(hyperstart.StartPod, hyperstart.StartPodRequest{Hostname: "p", ShareDir: "tag", ShareType: "virtiofs"})
	if r := v.command(hyperstart.Ping, nil); r.code != hyperstart.Ack {
		t.Errorf("ping: %s", r.payload)
	}
	start := time.Now()
	v.plugShare(conn, socket, "tag")
	if r := v.await(started, hyperstart.StartPod); r.code != hyperstart.Ack {
		t.Fatalf("start pod: %s", r.payload)
	}
	t.Logf("share usable %v after the plug", time.Since(start))

	s := spec("/bin/sh", "-c", "echo from guest > /file; echo done")
	s.Root = &specs.Root{Path: hyperstart.ShareMount + "/root"}
	p := v.run("share", s)
	if got := p.wait(); got != 0 || p.stdout.String() != "done\n" {
		t.Errorf("got %d %q %q", got, p.stdout.String(), p.err.String())
	}
	v.remove("share")
	if b, err := os.ReadFile(filepath.Join(dir, "root/file")); err != nil || string(b) != "from guest\n" {
		t.Errorf("file on the host: %q, %v", b, err)
	}
}

// TestFatal breaks the framing of the control port, which nothing can be read
// from afterwards, and wants one line on the console and a power-off.
func TestFatal(t *testing.T) {
	v := boot(t)
	if _, err := v.ctl.Write([]byte{0, 0, 0, 12, 0, 0, 0, 4}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.done:
	case <-time.After(replyDeadline):
		t.Fatal("no power-off")
	}
	const want = "ccv2-agent: fatal: read control message: hyperstart: ctl message 12: length below the header length (4 bytes)"
	if got := v.console.String(); !strings.Contains(got, want) || strings.Contains(got, "panic") {
		t.Errorf("console has no line %q:\n%s", want, got)
	}
}
