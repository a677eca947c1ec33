package agent_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func testPause(t *testing.T, v *vm) {
	ref := hyperstart.ContainerRef{Container: "pause"}
	p := v.run("pause", spec("sh", "-c", "while read l; do echo $l; done"))
	v.call(hyperstart.PauseContainer, ref)
	p.send([]byte("one\n"))
	_, req := v.streamsOf(false)
	req.ID, req.OCI = "e", encode(t, execSpec("true"))
	if e := v.fail(hyperstart.ExecCmd, hyperstart.ExecCmdRequest{Container: "pause", Process: req}); e.Class != hyperstart.ClassFailedPrecondition {
		t.Errorf("exec while paused: %+v", e)
	}
	if len(p.out.messages) != 0 {
		t.Error("output while paused")
	}
	v.call(hyperstart.ResumeContainer, ref)
	p.await("one\n")
	v.call(hyperstart.PauseContainer, ref)
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "pause", Signal: 9})
	if got := p.wait(); got != 137 {
		t.Errorf("killed while paused: got status %d", got)
	}
	v.remove("pause")
}

func testOOM(t *testing.T, v *vm) {
	limit := int64(32 << 20)
	s := spec("sh", "-c", "tail /dev/zero")
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	s.Process.Args = []string{"tail", "/dev/zero"}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/zero", Type: "bind", Source: "/dev/zero", Options: []string{"bind"}})
	p := v.run("oom", s)
	if got := p.wait(); got != 137 {
		t.Errorf("got status %d, want 137 (%q)", got, p.err.String())
	}
	select {
	case e := <-v.events:
		if e.Kind != hyperstart.EventOOM || e.Container != "oom" {
			t.Errorf("got event %+v", e)
		}
	case <-time.After(time.Second): // the ports are not ordered, a second is plenty
		t.Error("no oom event by the time of the exit")
	}
	v.remove("oom")
	if len(v.events) != 0 {
		t.Errorf("one more event: %+v", <-v.events)
	}
}

func testSignals(t *testing.T, v *vm) {
	p := v.run("sig", spec("sh", "-c", "trap 'echo usr1' USR1; sleep 1000 & echo go; while true; do wait; done"))
	p.await("go\n")
	v.call(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "sig", Process: "init", Signal: 10})
	p.await("usr1\n")
	e := v.exec("sig", "e", execSpec("sleep", "1000"))
	var list hyperstart.ProcessList
	must(t, json.Unmarshal(v.call(hyperstart.ListProcesses, hyperstart.ContainerRef{Container: "sig"}), &list))
	byID := map[string]int{}
	for _, pi := range list.Processes {
		byID[pi.Process]++
	}
	if byID["init"] != 1 || byID["e"] != 1 || byID[""] != 1 {
		t.Errorf("got processes %+v", list)
	}
	if err := v.fail(hyperstart.RemoveContainer, hyperstart.ContainerRef{Container: "sig"}); err.Class != hyperstart.ClassFailedPrecondition {
		t.Errorf("remove while running: %+v", err)
	}
	v.call(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "sig", Process: "e", Signal: 15})
	if got := e.wait(); got != 143 {
		t.Errorf("exec: got status %d, want 143", got)
	}
	if err := v.fail(hyperstart.SignalProcess, hyperstart.SignalProcessRequest{Container: "sig", Process: "e", Signal: 15}); err.Class != hyperstart.ClassNotFound {
		t.Errorf("signal a process that has gone: %+v", err)
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "sig", Signal: 10, AllProcesses: true})
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "sig", Signal: 9, AllProcesses: true})
	if got := p.wait(); got != 137 {
		t.Errorf("got status %d, want 137", got)
	}
	if err := v.fail(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "sig", Signal: 15}); err.Class != hyperstart.ClassNotFound {
		t.Errorf("kill a stopped container: %+v", err)
	}
	v.remove("sig")
	// A created container is removed without a start.
	p = v.create("sig", spec("true"))
	v.remove("sig")
	if got := p.wait(); got != 137 {
		t.Errorf("removed before start: got status %d, want 137", got)
	}
}

func testUpdate(t *testing.T, v *vm) {
	p := v.run("upd", spec("sleep", "1000"))
	limit, pids := int64(64<<20), int64(17)
	resources := encode(t, specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
	})
	v.call(hyperstart.UpdateContainer, hyperstart.UpdateContainerRequest{Container: "upd", Resources: resources})
	var stats hyperstart.Stats
	must(t, json.Unmarshal(v.call(hyperstart.StatsContainer, hyperstart.ContainerRef{Container: "upd"}), &stats))
	if stats.MemoryMax != 64<<20 || stats.PIDsMax != 17 || stats.PIDsCurrent != 1 || stats.MemoryCurrent == 0 ||
		stats.CPU["usage_usec"] == 0 || stats.Memory["anon"] == 0 {
		t.Errorf("got %+v", stats)
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "upd", Signal: 9})
	p.wait()
	v.remove("upd")
}

func testFiles(t *testing.T, v *vm) {
	p := v.run("files", spec("sleep", "1000"))
	v.call(hyperstart.WriteFile, []byte(`{"container":"files","file":"/tmp/a}b"}content`))
	e := v.exec("files", "e", execSpec("cat", "/tmp/a}b"))
	if got := e.wait(); got != 0 || e.stdout.String() != "content" {
		t.Errorf("got %d %q %q", got, e.stdout.String(), e.err.String())
	}
	got := v.call(hyperstart.ReadFile, []byte(`{"container":"files","file":"../../tmp/a}b"}`))
	if string(got) != "content" {
		t.Errorf("read back %q", got)
	}
	if got := v.call(hyperstart.ReadFile, []byte(`{"file":"/etc/resolv.conf"}`)); string(got) != "nameserver 10.0.0.10\n" {
		t.Errorf("resolv.conf: %q", got)
	}
	if err := v.fail(hyperstart.ReadFile, []byte(`{"container":"files","file":"/none"}`)); err.Class != hyperstart.ClassNotFound {
		t.Errorf("missing file: %+v", err)
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "files", Signal: 9})
	p.wait()
	v.remove("files")
}

// testConcurrent runs creations at once and a bare command between them.
func testConcurrent(t *testing.T, v *vm) {
	const n = 4
	procs, results := make([]*proc, n), make([]<-chan reply, n)
	start := time.Now()
	for i := range n {
		p, req := v.streamsOf(false)
		procs[i] = p
		results[i] = v.begin(hyperstart.NewContainer, request(t, fmt.Sprint("c", i), spec("echo", fmt.Sprint(i)), req))
	}
	if r := v.command(hyperstart.Ping, nil); r.code != hyperstart.Ack {
		t.Errorf("ping: %s %s", r.code, r.payload)
	}
	ping := time.Since(start)
	for i, ch := range results {
		if r := v.await(ch, hyperstart.NewContainer); r.code != hyperstart.Ack {
			t.Fatalf("create %d: %s", i, r.payload)
		}
		results[i] = v.begin(hyperstart.StartContainer, hyperstart.ContainerRef{Container: fmt.Sprint("c", i)})
	}
	for i, p := range procs {
		if r := v.await(results[i], hyperstart.StartContainer); r.code != hyperstart.Ack {
			t.Fatalf("start %d: %s", i, r.payload)
		}
		if got := p.wait(); got != 0 || p.stdout.String() != fmt.Sprintln(i) {
			t.Errorf("container %d: got %d %q", i, got, p.stdout.String())
		}
		v.remove(fmt.Sprint("c", i))
	}
	t.Logf("%d containers in %v, ping beside them %v", n, time.Since(start), ping)
}

func testRefusals(t *testing.T, v *vm) {
	for _, tt := range []struct {
		name    string
		code    hyperstart.Code
		payload string
		class   hyperstart.ErrorClass
	}{
		{"unknown code", 999, "", hyperstart.ClassNotImplemented},
		{"deprecated code", hyperstart.GetPod, "", hyperstart.ClassNotImplemented},
		{"guest's own code", hyperstart.Ack, "", hyperstart.ClassNotImplemented},
		{"bad json", hyperstart.NewContainer, "{", hyperstart.ClassInvalidArgument},
		{"null", hyperstart.NewContainer, "null", hyperstart.ClassInvalidArgument},
		{"path as id", hyperstart.NewContainer, `{"id":"../x","process":{"stdio":900,"stderr":901},"spec":{}}`, hyperstart.ClassInvalidArgument},
		{"empty spec", hyperstart.NewContainer, `{"id":"x","process":{"stdio":900,"stderr":901},"spec":{}}`, hyperstart.ClassInvalidArgument},
		{"unknown container", hyperstart.StartContainer, `{"container":"x"}`, hyperstart.ClassNotFound},
		{"no container", hyperstart.KillContainer, `{}`, hyperstart.ClassNotFound},
		{"bad signal", hyperstart.KillContainer, `{"container":"x","signal":400}`, hyperstart.ClassInvalidArgument},
		{"second pod", hyperstart.StartPod, `{"hostname":"x"}`, hyperstart.ClassAlreadyExists},
		{"nested call", hyperstart.Call, "\x00\x00\x00\x01\x00\x00\x00\x0c", hyperstart.ClassNotImplemented},
	} {
		if err := v.fail(tt.code, []byte(tt.payload)); err.Class != tt.class {
			t.Errorf("%s: got %+v, want class %s", tt.name, err, tt.class)
		}
	}
	if r := v.command(hyperstart.Call, []byte("short")); r.code != hyperstart.Error {
		t.Errorf("short call: got %s", r.code)
	}
	// Input for nobody, a credit message of a wrong size and one for nobody.
	v.sendTTY(hyperstart.AppendTTY(nil, 12345, []byte("x")))
	v.sendTTY(hyperstart.AppendCredit(nil, hyperstart.Credit{Seq: 12345, Bytes: 1}))
	v.sendTTY(hyperstart.AppendTTY(nil, hyperstart.CreditSeq, []byte("x")))
	if r := v.command(hyperstart.Ready, nil); r.code != hyperstart.Ack {
		t.Errorf("ready from host: got %s %s", r.code, r.payload)
	}
}

func testInfo(t *testing.T, v *vm) {
	var info hyperstart.GuestInfoReply
	must(t, json.Unmarshal(v.call(hyperstart.GuestInfo, nil), &info))
	t.Logf("%+v", info)
	if info.Kernel == "" || info.AgentVersion == "" || info.AgentRSS == 0 || info.MemTotal == 0 || info.BootMillis == 0 {
		t.Errorf("got %+v", info)
	}
	stacks := string(v.call(hyperstart.DumpStacks, nil))
	if !strings.Contains(stacks, "goroutine ") {
		t.Errorf("got %q", stacks)
	}
	if n := strings.Count(stacks, "\ngoroutine "); n > 20 {
		t.Errorf("%d goroutines after all containers have gone:\n%s", n, stacks)
	}
	v.call(hyperstart.OnlineCPUMem, nil)
	v.call(hyperstart.OnlineCPUMem, hyperstart.OnlineRequest{}) // all of that is there
}

// testClock: a step changes the time by what was said, whenever it arrives, and a
// slew by no more than a little at a time.
func testClock(t *testing.T, v *vm) {
	last := time.Now()
	adjust := func(a hyperstart.AdjustClockRequest) (moved time.Duration) {
		var reply hyperstart.AdjustClockReply
		must(t, json.Unmarshal(v.call(hyperstart.AdjustClock, a), &reply))
		now := time.Unix(0, reply.Now)
		moved, last = now.Sub(last), now
		return moved
	}
	adjust(hyperstart.AdjustClockRequest{})
	const hour = int64(time.Hour)
	for _, step := range []int64{hour, -hour, hour + 7, -hour - 7, 0} {
		begin := time.Now()
		moved := adjust(hyperstart.AdjustClockRequest{Step: step}) - time.Duration(step)
		// Both clocks count the same seconds, but do not begin and end at once.
		if slack := time.Since(begin) + time.Minute; moved < 0 || moved > slack {
			t.Errorf("a step of %v moved the time by %v more", time.Duration(step), moved)
		}
	}
	for _, slew := range []int64{hour, -hour, 0} {
		if moved := adjust(hyperstart.AdjustClockRequest{Slew: slew}); moved < 0 || moved > time.Minute {
			t.Errorf("a slew of %v moved the time by %v", time.Duration(slew), moved)
		}
	}
	if r := v.command(hyperstart.AdjustClock, hyperstart.AdjustClockRequest{Step: 1, Slew: 1}); r.code != hyperstart.Error {
		t.Errorf("a step and a slew: %s", r.code)
	}
}

// testCaches: the kernel has forgotten names when the command is answered.
func testCaches(t *testing.T, v *vm) {
	init := v.run("caches", spec("sleep", "1000"))
	exec := func(id, script string) string {
		sp := spec("sh", "-c", script).Process
		p := v.exec("caches", id, sp)
		p.wait()
		return p.stdout.String()
	}
	unused := func(id string) int {
		said := exec(id, "cat /proc/sys/fs/dentry-state")
		fields := strings.Fields(said)
		if len(fields) < 2 {
			t.Fatalf("the kernel says %q", said)
		}
		n, err := strconv.Atoi(fields[1])
		must(t, err)
		return n
	}
	for i, pages := range []bool{false, true} {
		exec(fmt.Sprint("walk", i), "find /proc/sys")
		before := unused(fmt.Sprint("before", i))
		v.call(hyperstart.DropCaches, hyperstart.DropCachesRequest{Pages: pages})
		if after := unused(fmt.Sprint("after", i)); after >= before {
			t.Errorf("pages %v: %d names that nobody uses before, %d after", pages, before, after)
		}
	}
	v.call(hyperstart.KillContainer, hyperstart.KillContainerRequest{Container: "caches", Signal: 9})
	init.wait()
	v.remove("caches")
}
