package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/image"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// replyDeadline bounds every single wait of these tests; emulation is slow.
const replyDeadline = 60 * time.Second

// vm is a real guest that runs the agent of this source tree, and a minimal
// host for it.
type vm struct {
	t        *testing.T
	ctl, tty net.Conn
	console  *lockedBuffer
	done     chan struct{} // closed when QEMU has ended

	mu      sync.Mutex // guards writes to ctl and what follows
	ticket  uint32
	acks    []chan reply
	results map[uint32]chan reply

	ttyMu   sync.Mutex // guards writes to tty and what follows
	streams map[uint64]*stream
	seq     uint64

	ready  chan struct{}
	events chan hyperstart.EventMessage
}

type reply struct {
	code    hyperstart.Code
	payload []byte
}

// stream is one sequence number of the tty port.
type stream struct {
	seq      uint64
	messages chan []byte // payloads in order, empty ones included
	credit   chan int    // grants of the guest
	manual   bool        // the test grants, not the reader
}

// boot starts a VM and waits for READY. extra are arguments for QEMU.
func boot(t *testing.T, extra ...string) *vm {
	t.Helper()
	return bootWith(t, nil, extra...)
}

// bootWith is boot with more files in the image.
func bootWith(t *testing.T, more []image.Addition, extra ...string) *vm {
	t.Helper()
	return bootGuest(t, usualGuest, more, extra...)
}

// bootGuest is bootWith for one of the guests.
func bootGuest(t *testing.T, guest string, more []image.Addition, extra ...string) *vm {
	t.Helper()
	kernel, initrd := artefacts(t, guest)
	initrd = testInitrd(t, initrd, more...)
	v := &vm{
		t: t, console: &lockedBuffer{}, done: make(chan struct{}),
		results: map[uint32]chan reply{}, streams: map[uint64]*stream{},
		ready: make(chan struct{}), events: make(chan hyperstart.EventMessage, 64),
	}
	dir := t.TempDir()
	args := []string{
		// One thread for both CPUs, as in a VM (decision 0021): with one for each, QEMU now and then runs what
		// the guest's kernel has just patched, as it does when it loads modules, and the guest hangs.
		"-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "512", "-no-reboot", "-nodefaults", "-display", "none",
		"-kernel", kernel, "-initrd", initrd, "-serial", "stdio",
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1 random.trust_cpu=on",
		"-device", "virtio-serial-pci",
	}
	args = append(args, extra...)
	var listeners []net.Listener
	for i, name := range []string{layout.CtlPort, layout.TTYPort} {
		path := filepath.Join(dir, fmt.Sprint(i))
		l, err := net.Listen("unix", path)
		must(t, err)
		defer l.Close()
		listeners = append(listeners, l)
		args = append(args, "-chardev", fmt.Sprintf("socket,id=c%d,path=%s", i, path),
			"-device", fmt.Sprintf("virtserialport,chardev=c%d,name=%s", i, name))
	}
	qemu := exec.Command("qemu-system-x86_64", args...)
	qemu.Stdout, qemu.Stderr = v.console, v.console
	start := time.Now()
	must(t, qemu.Start())
	go func() { _ = qemu.Wait(); close(v.done) }()
	t.Cleanup(func() {
		_ = qemu.Process.Kill()
		<-v.done
		if t.Failed() {
			t.Logf("console:\n%s", v.console.String())
		}
	})
	v.ctl, v.tty = v.accept(listeners[0]), v.accept(listeners[1])
	go v.readCtl()
	go v.readTTY()
	v.wait(v.ready, "READY")
	t.Logf("READY after %v", time.Since(start).Round(time.Millisecond))
	return v
}

// accept waits for QEMU to connect a port.
func (v *vm) accept(l net.Listener) net.Conn {
	v.t.Helper()
	conns := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			conns <- c
		}
	}()
	select {
	case c := <-conns:
		return c
	case <-v.done:
		v.t.Fatalf("qemu ended:\n%s", v.console.String())
		return nil
	}
}

func (v *vm) wait(ch <-chan struct{}, what string) {
	v.t.Helper()
	select {
	case <-ch:
	case <-v.done:
		v.t.Fatalf("qemu ended while waiting for %s", what)
	case <-time.After(replyDeadline):
		v.t.Fatalf("no %s after %v", what, replyDeadline)
	}
}

func (v *vm) readCtl() {
	r := hyperstart.NewCtlReader(bufio.NewReader(v.ctl))
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		payload = bytes.Clone(payload)
		switch code {
		case hyperstart.Ready:
			close(v.ready)
		case hyperstart.Ack, hyperstart.Error:
			v.mu.Lock()
			ch := v.acks[0]
			v.acks = v.acks[1:]
			v.mu.Unlock()
			ch <- reply{code, payload}
		case hyperstart.Result:
			ticket, status, inner, err := hyperstart.ParseCall(payload)
			if err != nil {
				v.t.Errorf("result: %v", err)
				return
			}
			v.mu.Lock()
			ch := v.results[ticket]
			delete(v.results, ticket)
			v.mu.Unlock()
			ch <- reply{status, inner}
		case hyperstart.Event:
			var e hyperstart.EventMessage
			if err := json.Unmarshal(payload, &e); err != nil {
				v.t.Errorf("event: %v", err)
			}
			v.events <- e
		default:
			v.t.Errorf("unexpected message %s", code)
		}
	}
}

func (v *vm) readTTY() {
	r := hyperstart.NewTTYReader(bufio.NewReader(v.tty))
	for {
		seq, payload, err := r.Read()
		if err != nil {
			return
		}
		if seq == hyperstart.CreditSeq {
			_ = hyperstart.ParseCredits(payload, func(c hyperstart.Credit) {
				if s := v.stream(c.Seq); s != nil {
					s.credit <- int(c.Bytes)
				}
			})
			continue
		}
		s := v.stream(seq)
		if s == nil {
			v.t.Errorf("message for unknown sequence %d", seq)
			continue
		}
		s.messages <- bytes.Clone(payload)
		if !s.manual && len(payload) > 0 {
			v.sendTTY(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: seq, Bytes: uint32(len(payload))}))
		}
	}
}

func (v *vm) stream(seq uint64) *stream {
	v.ttyMu.Lock()
	defer v.ttyMu.Unlock()
	return v.streams[seq]
}

func (v *vm) sendTTY(b []byte) {
	v.ttyMu.Lock()
	defer v.ttyMu.Unlock()
	if _, err := v.tty.Write(b); err != nil {
		v.t.Errorf("write tty: %v", err)
	}
}

// newStream allocates a sequence number. The channels have room for what one
// window can hold in messages of any size that the tests cause.
func (v *vm) newStream(manual bool) *stream {
	v.ttyMu.Lock()
	defer v.ttyMu.Unlock()
	v.seq++
	s := &stream{seq: v.seq, messages: make(chan []byte, 1<<16), credit: make(chan int, 1<<12), manual: manual}
	v.streams[v.seq] = s
	return s
}

// command sends a bare command and waits for its reply.
func (v *vm) command(code hyperstart.Code, payload any) reply {
	v.t.Helper()
	ch := make(chan reply, 1)
	v.mu.Lock()
	v.acks = append(v.acks, ch)
	_, err := v.ctl.Write(hyperstart.AppendCtl(nil, code, encode(v.t, payload)))
	v.mu.Unlock()
	must(v.t, err)
	return v.await(ch, code)
}

// begin sends a CALL and returns the channel of its RESULT.
func (v *vm) begin(code hyperstart.Code, payload any) <-chan reply {
	v.t.Helper()
	ack, result := make(chan reply, 1), make(chan reply, 1)
	v.mu.Lock()
	v.ticket++
	v.acks = append(v.acks, ack)
	v.results[v.ticket] = result
	body := hyperstart.AppendCall(nil, v.ticket, code, encode(v.t, payload))
	_, err := v.ctl.Write(hyperstart.AppendCtl(nil, hyperstart.Call, body))
	v.mu.Unlock()
	must(v.t, err)
	if r := v.await(ack, hyperstart.Call); r.code != hyperstart.Ack {
		v.t.Fatalf("call %s refused: %s", code, r.payload)
	}
	return result
}

// call runs a command that must succeed and returns its answer.
func (v *vm) call(code hyperstart.Code, payload any) []byte {
	v.t.Helper()
	r := v.await(v.begin(code, payload), code)
	if r.code != hyperstart.Ack {
		v.t.Fatalf("%s: %s", code, r.payload)
	}
	return r.payload
}

// fail runs a command that must fail.
func (v *vm) fail(code hyperstart.Code, payload any) *hyperstart.CommandError {
	v.t.Helper()
	r := v.await(v.begin(code, payload), code)
	if r.code != hyperstart.Error {
		v.t.Fatalf("%s: got %s, want ERROR", code, r.code)
	}
	return hyperstart.ParseError(hyperstart.DialectCCv2, code, r.payload)
}

func (v *vm) await(ch <-chan reply, code hyperstart.Code) reply {
	v.t.Helper()
	select {
	case r := <-ch:
		return r
	case <-v.done:
		v.t.Fatalf("qemu ended while waiting for the reply to %s", code)
	case <-time.After(replyDeadline):
		v.t.Fatalf("no reply to %s after %v", code, replyDeadline)
	}
	return reply{}
}

func encode(t *testing.T, payload any) []byte {
	t.Helper()
	switch p := payload.(type) {
	case nil:
		return nil
	case []byte:
		return p
	}
	b, err := json.Marshal(payload)
	must(t, err)
	return b
}

// lockedBuffer collects the console.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// message returns the next payload of a stream.
func (v *vm) message(s *stream) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), replyDeadline)
	defer cancel()
	select {
	case b := <-s.messages:
		return b, nil
	case <-v.done:
		return nil, errors.New("qemu ended")
	case <-ctx.Done():
		return nil, fmt.Errorf("nothing on sequence %d for %v", s.seq, replyDeadline)
	}
}
