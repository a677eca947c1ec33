//go:build e2e

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// callsPerSequence are as many as make two or three lives of a container.
const callsPerSequence = 40

// TestCalls makes random sequences of calls of the task API, one after the other, with
// runc's shim and with this one: what they answer, what State says afterwards, and the
// events are the same. CCV2_SEED repeats one sequence; CCV2_FULL makes twelve.
func TestCalls(t *testing.T) {
	shared.Watch(t)
	seeds := []uint64{1, 2, 3}
	if os.Getenv("CCV2_FULL") != "" {
		seeds = nil
		for range 12 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	if text := os.Getenv("CCV2_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			theirs := sequenceOn(t, harness.Runc, seed)
			ours := sequenceOn(t, harness.Runtime, seed)
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("CCV2_SEED=%d (-runc +ccv2):\n%s", seed, diff)
			}
		})
	}
}

// calls makes the calls of one sequence and writes down what becomes of them. What it
// knows of the container comes from the answers, which are the same with both.
type calls struct {
	t         *testing.T
	id        string
	runtime   string
	random    *rand.Rand
	container client.Container
	service   tasks.TasksClient
	program   string // of the init process: "wait" or "exit"
	status    map[string]tasktypes.Status
	programs  map[string]string // of the execs
	failed    map[string]bool   // execs that could not be started
	events    *harness.Events
	seen      map[string]int // events that have been waited for, by topic and process
	log       []string
}

// sequenceOn returns what the calls of a seed answer, and their events.
func sequenceOn(t *testing.T, runtime string, seed uint64) []string {
	id := fmt.Sprintf("calls-%d", seed)
	defer shared.Remove(t, id)
	c := &calls{
		events: shared.Record(t), seen: map[string]int{},
		t: t, id: id, runtime: runtime, random: rand.New(rand.NewPCG(seed, 0)), service: shared.Client.TaskService(),
		status: map[string]tasktypes.Status{}, programs: map[string]string{}, failed: map[string]bool{}, program: "wait",
	}
	if c.random.IntN(4) == 0 {
		c.program = "exit"
	}
	c.container = shared.ContainerOn(t, runtime, id, argsOf(c.program))
	for range callsPerSequence {
		c.step()
	}
	if _, found := c.status[""]; found {
		_, _ = c.service.Resume(shared.Context(), &tasks.ResumeTaskRequest{ContainerID: id})
		if _, err := c.service.Kill(shared.Context(), &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL)}); err == nil {
			c.await("")
		}
		c.note("the end", c.remove(""))
	}
	deleted := func(e harness.Event) bool { return e.Topic == "delete" && e.Process == "" }
	for _, e := range inOrder(slices.DeleteFunc(c.events.Of(id), deleted)) {
		c.log = append(c.log, "event "+e)
	}
	return c.log
}

// awaitEvent waits for one more event of a process. runc's shim sends some of them after
// the answer that they are about.
func (c *calls) awaitEvent(topic, process string) {
	c.t.Helper()
	c.seen[topic+process]++
	harness.Until(c.t, fmt.Sprintf("%s: event %s of %q after %q", c.runtime, topic, process, c.log), func() bool {
		n := 0
		for _, e := range c.events.Of(c.id) {
			if e.Topic == topic && e.Process == process {
				n++
			}
		}
		return n >= c.seen[topic+process]
	})
}

// inOrder are events as text. Execs that end together with their container have no order.
func inOrder(events []harness.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.String())
	}
	exit := func(i int) bool { return i < len(all) && events[i].Topic == "exit" && events[i].Process != "" }
	for i := range all {
		end := i
		for exit(end) {
			end++
		}
		slices.Sort(all[i:end])
	}
	return all
}

// argsOf is a program: "wait" until a signal, or "exit" with 5.
func argsOf(program string) []string {
	switch program {
	case "wait":
		return []string{"sleep", "1000"}
	case "exit":
		return []string{"sh", "-c", "exit 5"}
	}
	return []string{"/no/such"}
}

// classOf is the class of an error that clients look at. Others are refusals, which runc's
// shim has no class for, most of the time.
func classOf(err error) string {
	err = errgrpc.ToNative(err)
	switch {
	case err == nil:
		return "ok"
	case errdefs.IsNotFound(err):
		return "not found"
	case errdefs.IsAlreadyExists(err):
		return "exists"
	}
	return "refused"
}

func (c *calls) note(call, class string) { c.log = append(c.log, call+": "+class) }

// step makes one call, and waits for what it ends.
func (c *calls) step() {
	kinds := []func() (string, string){
		c.create, c.start, c.start, c.start, c.exec, c.exec, c.kill, c.remove1, c.pause, c.resume, c.ask, c.ask,
	}
	kind := c.random.IntN(len(kinds))
	init, found := c.status[""]
	if found && init == tasktypes.Status_PAUSED && c.random.IntN(2) == 0 {
		kind = 9
	}
	call, class := kinds[kind]()
	if call == "" {
		return
	}
	c.note(call, class)
	c.settle()
}

// settle writes down what State says of all processes.
func (c *calls) settle() {
	c.t.Helper()
	for _, id := range []string{"", "e0", "e1"} {
		if _, found := c.status[id]; !found {
			continue
		}
		got, err := c.service.Get(shared.Context(), &tasks.GetRequest{ContainerID: c.id, ExecID: id})
		if err != nil {
			c.note("    state of "+id, classOf(err))
			continue
		}
		c.status[id] = got.GetProcess().GetStatus()
		if c.failed[id] { // with runc's shim it is still created, though Wait returns
			continue
		}
		c.note("    state of "+id, fmt.Sprint(got.GetProcess().GetStatus(), " ", got.GetProcess().GetExitStatus()))
	}
}

// await waits for the end of a process, and of all others when it is the init process.
func (c *calls) await(id string) {
	c.t.Helper()
	ended := []string{id}
	if id == "" {
		for _, exec := range []string{"e0", "e1"} {
			if c.status[exec] == tasktypes.Status_RUNNING {
				ended = append(ended, exec)
			}
		}
	}
	for _, id := range ended {
		if _, err := c.service.Wait(shared.Context(), &tasks.WaitRequest{ContainerID: c.id, ExecID: id}); err != nil {
			c.t.Fatalf("wait for %q: %v", id, err)
		}
		c.awaitEvent("exit", id)
	}
}

func (c *calls) process() string { return []string{"", "", "e0", "e1"}[c.random.IntN(4)] }

func (c *calls) is(status tasktypes.Status) bool {
	init, found := c.status[""]
	return found && init == status
}

func (c *calls) create() (string, string) {
	_, err := c.container.NewTask(shared.Context(), cio.NullIO)
	if err == nil {
		c.status = map[string]tasktypes.Status{"": tasktypes.Status_CREATED}
	}
	return "create " + c.program, classOf(err)
}

func (c *calls) start() (string, string) {
	id := c.process()
	program := c.program
	if id != "" {
		program = c.programs[id]
	}
	// runc's exec waits until the container is resumed, and its shim does not outlive the second
	// start of an exec that could not be started.
	if c.is(tasktypes.Status_PAUSED) || c.failed[id] {
		return "", ""
	}
	_, err := c.service.Start(shared.Context(), &tasks.StartRequest{ContainerID: c.id, ExecID: id})
	c.failed[id] = id != "" && err != nil
	if err == nil && program == "exit" {
		c.await(id)
	}
	return "start " + id + " " + program, classOf(err)
}

func (c *calls) exec() (string, string) {
	id, program := fmt.Sprint("e", c.random.IntN(2)), []string{"wait", "wait", "exit", "missing"}[c.random.IntN(4)]
	if c.is(tasktypes.Status_PAUSED) || c.is(tasktypes.Status_STOPPED) { // runc refuses this, and ccv2 its start
		return "", ""
	}
	spec, err := typeurl.MarshalAnyToProto(&specs.Process{Args: argsOf(program), Cwd: "/", Env: []string{"PATH=/bin"}})
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = c.service.Exec(shared.Context(), &tasks.ExecProcessRequest{ContainerID: c.id, ExecID: id, Spec: spec})
	if err == nil {
		c.status[id], c.programs[id], c.failed[id] = tasktypes.Status_CREATED, program, false
	}
	return "exec " + id + " " + program, classOf(err)
}

// kill sends a signal that ends a process, or one that is ignored.
func (c *calls) kill() (string, string) {
	id, signal, all := c.process(), []unix.Signal{unix.SIGKILL, unix.SIGURG}[c.random.IntN(2)], c.random.IntN(2) == 1
	if c.is(tasktypes.Status_PAUSED) || id != "" && all { // with runc it may arrive after the resume; all are a container's
		return "", ""
	}
	lives := c.status[id] == tasktypes.Status_RUNNING || id == "" && c.is(tasktypes.Status_CREATED)
	_, err := c.service.Kill(shared.Context(), &tasks.KillRequest{ContainerID: c.id, ExecID: id, Signal: uint32(signal), All: all})
	if err == nil && lives && signal == unix.SIGKILL {
		c.await(id)
	}
	return fmt.Sprint("kill ", id, " ", signal, " all ", all), classOf(err)
}

func (c *calls) remove1() (string, string) {
	id := c.process()
	if id == "" && c.is(tasktypes.Status_CREATED) { // with runc there is no exit of it, or one that comes later
		return "", ""
	}
	return "delete " + id, c.remove(id)
}

func (c *calls) remove(id string) string {
	var err error
	if id == "" {
		_, err = c.service.Delete(shared.Context(), &tasks.DeleteTaskRequest{ContainerID: c.id})
	} else {
		_, err = c.service.DeleteProcess(shared.Context(), &tasks.DeleteProcessRequest{ContainerID: c.id, ExecID: id})
	}
	if err == nil {
		delete(c.status, id)
		if id == "" {
			c.status = map[string]tasktypes.Status{}
			if c.runtime == harness.Runtime { // runc's shim may end before it has sent it
				c.awaitEvent("delete", "")
			}
		}
	}
	return classOf(err)
}

func (c *calls) pause() (string, string) {
	_, err := c.service.Pause(shared.Context(), &tasks.PauseTaskRequest{ContainerID: c.id})
	return "pause", classOf(err)
}

func (c *calls) resume() (string, string) {
	_, err := c.service.Resume(shared.Context(), &tasks.ResumeTaskRequest{ContainerID: c.id})
	return "resume", classOf(err)
}

// ask makes a call that changes no state.
func (c *calls) ask() (string, string) {
	id := c.process()
	switch c.random.IntN(4) {
	case 0:
		_, err := c.service.Get(shared.Context(), &tasks.GetRequest{ContainerID: c.id, ExecID: id})
		return "state " + id, classOf(err)
	case 1:
		_, err := c.service.ListPids(shared.Context(), &tasks.ListPidsRequest{ContainerID: c.id})
		return "pids", classOf(err)
	case 2:
		_, err := c.service.CloseIO(shared.Context(), &tasks.CloseIORequest{ContainerID: c.id, ExecID: id, Stdin: true})
		return "close stdin " + id, classOf(err)
	}
	_, err := c.service.ResizePty(shared.Context(), &tasks.ResizePtyRequest{ContainerID: c.id, ExecID: id, Width: 80, Height: 24})
	return "resize " + id, classOf(err)
}
