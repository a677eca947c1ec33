//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// recordedHost is what a host has said to the Go agent of Clear Containers, and what that has answered.
const recordedHost = "../../pkg/guest/hyperstart/testdata/clear-go.hex"

// answersDiffer are the recorded steps in which the agent of this project does something else, and why.
var answersDiffer = map[string]string{
	"GETVERSION is not supported by the Go agent -> ERROR with text": "it has a version",
	"NEWCONTAINER c3: tty":            "the greeting is that of another busybox; size and exit are compared",
	"WINSIZE by seq 40x100":           "as before",
	"EXECCMD missing binary":          "the text is crun's, which names the program in the same words",
	"PSCONTAINER(23) json/table":      "the process has another number",
	"NEWCONTAINER before STARTPOD":    "the reason has other words",
	"STARTPOD twice":                  "the reason has other words",
	"KILLCONTAINER unknown":           "the reason has other words",
	"WRITEFILE unsupported":           "it is supported",
	"SETUPINTERFACE unsupported":      "it is supported",
	"DESTROYPOD: ACK, VM stays up":    "the guest powers off, as hyperstart does",
	"STARTPOD again after DESTROYPOD": "as before",
}

// TestOriginalReplay is a host that knows nothing of this project: it starts a VM with the two ports and a 9p share,
// and says byte for byte what was recorded. The agent has to answer as the original one.
func TestOriginalReplay(t *testing.T) {
	var kernel, image, qemu string
	shared.Configure(t, func(s *harness.Settings) { kernel, image = guest9P(t, s); qemu = s.QEMU })
	r := bootReplay(t, qemu, kernel, image)
	text, err := os.ReadFile(recordedHost)
	if err != nil {
		t.Fatal(err)
	}
	step, reached := "", make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "# --- "); ok {
			step = title
			reached[step] = true
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		message, err := hex.DecodeString(fields[3])
		if err != nil {
			t.Fatal(err)
		}
		if fields[0] == "<" {
			r.wantAnswer(step, fields[1], message)
		} else if r.say(step, fields[1], message); strings.HasPrefix(step, "DESTROYPOD") {
			break
		}
		if t.Failed() {
			t.Fatalf("in step %q", step)
		}
	}
	for step := range answersDiffer {
		if !reached[step] && !strings.HasPrefix(step, "STARTPOD again") {
			t.Errorf("the recording has no step %q", step)
		}
	}
	if code, _ := r.readControl(); code != codeAck {
		t.Errorf("DESTROYPOD is answered by %d", code)
	}
	select {
	case <-r.ended:
	case <-time.After(harness.Patience):
		t.Error("the guest did not power off")
	}
}

const (
	codeAck, codeError = 9, 10

	seqTerminal, seqLarge = 11, 17
)

// replayHost is a VM and its two ports.
type replayHost struct {
	t        *testing.T
	ctl, tty net.Conn
	ended    chan struct{}

	mu      sync.Mutex // guards what follows
	changed *sync.Cond // on mu
	got     map[uint64][]byte
	want    map[uint64][]byte // all that was recorded so far
}

func bootReplay(t *testing.T, qemu, kernel, image string) *replayHost {
	t.Helper()
	dir := t.TempDir()
	makeRoots(t, dir, kernel)
	args := []string{
		"-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512", "-no-reboot", "-nodefaults", "-display", "none", "-kernel", kernel, "-initrd", image,
		"-serial", "file:" + filepath.Join(dir, "console"), "-append", "console=ttyS0 panic=-1 random.trust_cpu=on", "-device", "virtio-serial-pci",
		"-fsdev", "local,id=share,security_model=none,path=" + filepath.Join(dir, "share"), "-device", "virtio-9p-pci,fsdev=share,mount_tag=hyperShared",
	}
	var ports []*net.UnixListener
	for n := range 2 {
		path := filepath.Join(dir, fmt.Sprint("port", n))
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l)
		args = append(args, "-chardev", fmt.Sprintf("socket,id=c%d,path=%s", n, path), "-device", fmt.Sprintf("virtserialport,chardev=c%d,name=sh.hyper.channel.%d", n, n))
	}
	r := &replayHost{t: t, ended: make(chan struct{}), got: make(map[uint64][]byte), want: make(map[uint64][]byte)}
	r.changed = sync.NewCond(&r.mu)
	cmd := exec.Command(qemu, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(r.ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-r.ended
		if console, _ := os.ReadFile(filepath.Join(dir, "console")); t.Failed() {
			t.Logf("console:\n%s", console)
		}
	})
	conns := make([]net.Conn, len(ports))
	for n, l := range ports {
		_ = l.SetDeadline(time.Now().Add(harness.Patience))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns[n] = conn
	}
	r.ctl, r.tty = conns[0], conns[1]
	go r.readStreams()
	return r
}

// makeRoots makes the root file systems of the recorded containers.
func makeRoots(t *testing.T, dir, kernel string) {
	t.Helper()
	busybox := filepath.Join(filepath.Dir(filepath.Dir(kernel)), "busybox", "bin", "busybox")
	for n := 1; n <= 6; n++ {
		root := filepath.Join(dir, "share", fmt.Sprint("c", n), "rootfs")
		for _, d := range []string{"bin", "dev", "proc", "sys", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command("cp", busybox, filepath.Join(root, "bin", "busybox")).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		for _, name := range []string{"sh", "cat", "sleep", "true", "wc", "hostname", "stty"} {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (r *replayHost) readStreams() {
	for {
		head := make([]byte, 12)
		if _, err := io.ReadFull(r.tty, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[8:])-12)
		if _, err := io.ReadFull(r.tty, payload); err != nil {
			return
		}
		r.mu.Lock()
		seq := binary.BigEndian.Uint64(head)
		r.got[seq] = appendStream(r.got[seq], payload)
		r.changed.Broadcast()
		r.mu.Unlock()
	}
}

// appendStream notes an end as a zero byte, so that an exit differs from output.
func appendStream(all, payload []byte) []byte {
	if len(payload) == 0 {
		return append(all, 0)
	}
	return append(all, payload...)
}

func (r *replayHost) readControl() (code uint32, payload []byte) {
	r.t.Helper()
	_ = r.ctl.SetReadDeadline(time.Now().Add(harness.Patience))
	head := make([]byte, 8)
	if _, err := io.ReadFull(r.ctl, head); err != nil {
		r.t.Fatal(err)
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[4:])-8)
	if _, err := io.ReadFull(r.ctl, payload); err != nil {
		r.t.Fatal(err)
	}
	return binary.BigEndian.Uint32(head), payload
}

// say sends what the host has said, once all that the guest had said before has come again.
func (r *replayHost) say(step, port string, message []byte) {
	r.t.Helper()
	r.await(step)
	conn := r.ctl
	if port == "tty" {
		conn = r.tty
		if binary.BigEndian.Uint64(message) == seqLarge { // what the recording leaves out; in the largest pieces that an original host sends
			for range 10 {
				piece := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, seqLarge), 12+10000)
				if _, err := conn.Write(append(piece, bytes.Repeat([]byte("x"), 10000)...)); err != nil {
					r.t.Fatal(err)
				}
			}
		}
	}
	if _, err := conn.Write(message); err != nil {
		r.t.Fatal(err)
	}
}

// await waits for all output that was recorded so far.
func (r *replayHost) await(step string) {
	r.t.Helper()
	late := time.AfterFunc(harness.Patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.t.Errorf("step %q: output is missing", step)
		r.changed.Broadcast()
	})
	defer late.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq, want := range r.want {
		for !streamEqual(seq, r.got[seq], want) {
			if r.t.Failed() {
				r.t.Fatalf("stream %d: %q, recorded %q", seq, r.got[seq], want)
			}
			r.changed.Wait()
		}
	}
}

// streamEqual compares what came with what was recorded.
func streamEqual(seq uint64, got, want []byte) bool {
	if seq != seqTerminal {
		return bytes.Equal(got, want)
	}
	size, ended := []byte("40 100\r\n"), []byte{0, 5}
	return bytes.Contains(got, []byte("# ")) && bytes.Contains(got, size) == bytes.Contains(want, size) && bytes.HasSuffix(got, ended) == bytes.HasSuffix(want, ended)
}

var number = regexp.MustCompile(`\d+`)

// wantAnswer wants what the guest has said.
func (r *replayHost) wantAnswer(step, port string, message []byte) {
	r.t.Helper()
	if port == "tty" {
		r.mu.Lock()
		defer r.mu.Unlock()
		seq := binary.BigEndian.Uint64(message)
		r.want[seq] = appendStream(r.want[seq], message[12:])
		return
	}
	code, payload := r.readControl()
	wantCode, want := binary.BigEndian.Uint32(message), message[8:]
	why := answersDiffer[step]
	switch {
	case why == "it has a version", why == "it is supported":
		return
	case code != wantCode:
	case code == codeError && why != "":
		if len(payload) > 0 && payload[0] != '{' && (step != "EXECCMD missing binary" || bytes.Contains(payload, []byte(`exec: "/bin/nope": stat /bin/nope: no such file or directory`))) {
			return
		}
	case strings.HasPrefix(step, "PSCONTAINER"):
		if blanks := regexp.MustCompile(` +`); string(blanks.ReplaceAll(number.ReplaceAll(payload, []byte("N")), []byte(" "))) == string(blanks.ReplaceAll(number.ReplaceAll(want, []byte("N")), []byte(" "))) {
			return
		}
	case bytes.Equal(payload, want):
		return
	}
	r.t.Errorf("step %q: answer %d %q, recorded %d %q", step, code, payload, wantCode, want)
}
