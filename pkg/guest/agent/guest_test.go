package agent_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// proc is one process in the guest as the host sees it.
type proc struct {
	v           *vm
	out, errs   *stream
	stdout, err bytes.Buffer
}

// spec returns a small but usual specification.
func spec(args ...string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "/rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{},
		},
		Hostname: "inner",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
			CgroupsPath: "/somewhere/on/the/host",
		},
	}
}

func (v *vm) streamsOf(terminal bool) (*proc, *hyperstart.Process) {
	p := &proc{v: v, out: v.newStream(false)}
	req := &hyperstart.Process{Terminal: terminal, Stdio: p.out.seq}
	if !terminal {
		p.errs = v.newStream(false)
		req.Stderr = p.errs.seq
	}
	return p, req
}

func request(t *testing.T, id string, s *specs.Spec, p *hyperstart.Process) *hyperstart.NewContainerRequest {
	t.Helper()
	raw, err := json.Marshal(s)
	must(t, err)
	return &hyperstart.NewContainerRequest{ID: id, Process: p, Spec: raw}
}

// create creates a container that is not started.
func (v *vm) create(id string, s *specs.Spec) *proc {
	v.t.Helper()
	p, req := v.streamsOf(s.Process.Terminal)
	v.call(hyperstart.NewContainer, request(v.t, id, s, req))
	return p
}

// run creates and starts a container.
func (v *vm) run(id string, s *specs.Spec) *proc {
	v.t.Helper()
	p := v.create(id, s)
	v.call(hyperstart.StartContainer, hyperstart.ContainerRef{Container: id})
	return p
}

func (v *vm) exec(container, id string, sp *specs.Process) *proc {
	v.t.Helper()
	p, req := v.streamsOf(sp.Terminal)
	req.ID = id
	var err error
	req.OCI, err = json.Marshal(sp)
	must(v.t, err)
	v.call(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: container, Process: req})
	return p
}

func (v *vm) remove(id string) {
	v.t.Helper()
	v.call(hyperstart.RemoveContainer, hyperstart.ContainerRef{Container: id})
}

// wait collects output until the exit and returns the status.
func (p *proc) wait() int {
	p.v.t.Helper()
	for {
		b, err := p.v.message(p.out)
		must(p.v.t, err)
		if len(b) > 0 {
			p.stdout.Write(b)
			continue
		}
		status, err := p.v.message(p.out)
		must(p.v.t, err)
		if len(status) != 1 {
			p.v.t.Fatalf("exit message of %d bytes", len(status))
		}
		// Everything on stderr preceded the exit.
		for p.errs != nil && len(p.errs.messages) > 0 {
			p.err.Write(<-p.errs.messages)
		}
		return int(status[0])
	}
}

func (p *proc) send(b []byte) { p.v.sendTTY(hyperstart.AppendTTY(nil, p.out.seq, b)) }

// await collects output until it contains want.
func (p *proc) await(want string) {
	p.v.t.Helper()
	for !strings.Contains(p.stdout.String(), want) {
		b, err := p.v.message(p.out)
		must(p.v.t, err)
		if len(b) == 0 {
			p.v.t.Fatalf("process ended, output %q has no %q", p.stdout.String(), want)
		}
		p.stdout.Write(b)
	}
}

// TestGuest boots one VM and runs everything in it, since a boot is the most
// expensive step.
func TestGuest(t *testing.T) {
	v := boot(t)
	if r := v.command(hyperstart.GetVersion, nil); binary.BigEndian.Uint32(r.payload) != hyperstart.VersionCCv2 {
		t.Fatalf("version %x", r.payload)
	}
	v.call(hyperstart.StartPod, hyperstart.StartPodRequest{
		Hostname: "pod", Clock: time.Now().UnixNano(), DNS: []string{"10.0.0.10"},
		Sysctls: map[string]string{"net.core.somaxconn": "1234"},
	})
	for _, tt := range []struct {
		name string
		test func(*testing.T, *vm)
	}{
		{"output and exit", testOutput},
		{"exit statuses", testStatuses},
		{"pod", testPod},
		{"stdin round trip", testStdin},
		{"slow reader", testSlowReader},
		{"terminal", testTerminal},
		{"exec", testExec},
		{"exit order", testExitOrder},
		{"grandchild", testGrandchild},
		{"pause", testPause},
		{"oom", testOOM},
		{"missing binary", testMissing},
		{"not executed", testNotExecuted},
		{"signals and lists", testSignals},
		{"update and stats", testUpdate},
		{"files", testFiles},
		{"limits", testLimits},
		{"clock", testClock},
		{"caches", testCaches},
		{"concurrent calls", testConcurrent},
		{"refusals", testRefusals},
		{"info", testInfo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := v.t
			v.t = t
			defer func() { v.t = outer }()
			tt.test(t, v)
		})
	}
	v.call(hyperstart.DestroyPod, nil)
	select {
	case <-v.done:
	case <-time.After(replyDeadline):
		t.Fatal("no power-off")
	}
}

// testLimits: no limit of a process comes from the size of the guest.
func testLimits(t *testing.T, v *vm) {
	const script = "ulimit -u; ulimit -i; ulimit -Sn; ulimit -Hn"
	init := v.run("limits", spec("sh", "-c", script+"; sleep 1000"))
	init.await("524288\n")
	exec := v.exec("limits", "exec", spec("sh", "-c", script).Process)
	exec.wait()
	const want = "unlimited\nunlimited\n1024\n524288\n"
	if init.stdout.String() != want || exec.stdout.String() != want {
		t.Errorf("init process %q, exec %q, want %q", init.stdout.String(), exec.stdout.String(), want)
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "limits", Signal: 9, AllProcesses: true})
	init.wait()
	v.remove("limits")
}

func testOutput(t *testing.T, v *vm) {
	start := time.Now()
	p := v.create("out", spec("sh", "-c", "echo to stdout; echo to stderr >&2; exit 42"))
	created := time.Now()
	v.call(hyperstart.StartContainer, hyperstart.ContainerRef{Container: "out"})
	started := time.Now()
	status := p.wait()
	t.Logf("create %v, start %v, exit %v", created.Sub(start), started.Sub(created), time.Since(started))
	if status != 42 || p.stdout.String() != "to stdout\n" || p.err.String() != "to stderr\n" {
		t.Errorf("got %d %q %q", status, p.stdout.String(), p.err.String())
	}
	v.remove("out")
}
