package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"
)

// sequence makes calls of the service and of the model, and compares them.
type sequence struct {
	*fixture
	model *model
	input []byte
	calls []string
}

// next takes a number below n from the input, 0 when nothing is left.
func (s *sequence) next(n int) int {
	if len(s.input) == 0 {
		return 0
	}
	b := s.input[0]
	s.input = s.input[1:]
	return int(b) % n
}

// process takes "" for the init process, or an exec.
func (s *sequence) process() string { return []string{"", "", "e0", "e1", "e2"}[s.next(5)] }

// program takes what a process does; most of them are to live.
func (s *sequence) program() string {
	return []string{"wait", "wait", "wait", "exit", "missing"}[s.next(5)]
}

func args(program string) []string { return []string{program, fmt.Sprint(modelExit)} }

// FuzzCalls makes any sequence of calls, one after the other: the answers and the
// events are those of the model.
func FuzzCalls(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2)) // to be repeated
	for range 100 {
		input := make([]byte, 100)
		for i := range input {
			input[i] = byte(random.Uint32())
		}
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		s := &sequence{fixture: newFixture(t), model: newModel(), input: input[:min(len(input), 100)]}
		for len(s.input) > 0 && !t.Failed() {
			s.step()
		}
		if diff := cmp.Diff(ordered(s.model.events), ordered(s.events.Events())); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if t.Failed() {
			t.Logf("calls:\n%s", strings.Join(s.calls, "\n"))
		}
	})
}

// ordered sorts the execs that end together with their container, in which they
// have no order. Those of one whose program ends at once may have ended before its start
// is told: only the events of one process have an order, with runc as well.
func ordered(events []string) []string {
	for i := range events {
		for j := i; j > 0 && events[j] == "started c" && strings.HasPrefix(events[j-1], "exited c/"); j-- {
			events[j-1], events[j] = events[j], events[j-1]
		}
	}
	for i := 0; i < len(events); i++ {
		end := i
		for end < len(events) && strings.HasPrefix(events[end], "exited c/") {
			end++
		}
		slices.Sort(events[i:end])
		i = max(i, end)
	}
	return events
}

// step makes one call.
func (s *sequence) step() {
	s.t.Helper()
	ctx := s.t.Context()
	kinds := []func(context.Context) (name string, want string, err error){
		s.create, s.start, s.start, s.start, s.exec, s.exec, s.kill, s.remove, s.remove, s.pause, s.resume, s.ask, s.ask,
	}
	name, want, err := kinds[s.next(len(kinds))](ctx)
	s.calls = append(s.calls, fmt.Sprintf("%s: %v", name, err))
	if got := class(err); got != want {
		s.t.Errorf("%s: got %s, want %s", name, got, want)
		return
	}
	s.settle(ctx)
}

// settle waits for the processes that have ended, and compares what State says of
// all of them.
func (s *sequence) settle(ctx context.Context) {
	s.t.Helper()
	for _, id := range []string{"e0", "e1", "e2", ""} {
		want, found := s.model.find(id)
		if found != ok {
			continue
		}
		if want.status == tasktypes.Status_STOPPED {
			w, err := s.Wait(ctx, &taskapi.WaitRequest{ID: "c", ExecID: id})
			if err != nil || w.ExitStatus != want.exit {
				s.t.Errorf("wait for %q: %v, %v, want %d", id, w, err, want.exit)
			}
		}
		got, err := s.State(ctx, &taskapi.StateRequest{ID: "c", ExecID: id})
		if err != nil || got.Status != want.status || got.ExitStatus != want.exit {
			s.t.Errorf("state of %q: %v, %v, want %s, %d", id, got, err, want.status, want.exit)
		}
	}
}

func (s *sequence) create(ctx context.Context) (string, string, error) {
	program := s.program()
	_, err := s.Create(ctx, &taskapi.CreateTaskRequest{ID: "c", Bundle: s.bundle(args(program)...)})
	return "create " + program, s.model.create(program), err
}

func (s *sequence) start(ctx context.Context) (string, string, error) {
	id := s.process()
	_, err := s.Start(ctx, &taskapi.StartRequest{ID: "c", ExecID: id})
	return "start " + id, s.model.start(id), err
}

func (s *sequence) exec(ctx context.Context) (string, string, error) {
	id, program := fmt.Sprint("e", s.next(3)), s.program()
	_, err := s.Exec(ctx, &taskapi.ExecProcessRequest{ID: "c", ExecID: id, Spec: process(args(program)...)})
	return "exec " + id + " " + program, s.model.exec(id, program), err
}

func (s *sequence) kill(ctx context.Context) (string, string, error) {
	id, signal, all := s.process(), []uint32{9, 15}[s.next(2)], s.next(2) == 1
	_, err := s.Kill(ctx, &taskapi.KillRequest{ID: "c", ExecID: id, Signal: signal, All: all})
	return fmt.Sprint("kill ", id, " ", signal, " ", all), s.model.kill(id, signal, all), err
}

func (s *sequence) remove(ctx context.Context) (string, string, error) {
	id := s.process()
	_, err := s.Delete(ctx, &taskapi.DeleteRequest{ID: "c", ExecID: id})
	return "delete " + id, s.model.remove(id), err
}

func (s *sequence) pause(ctx context.Context) (string, string, error) {
	_, err := s.Pause(ctx, &taskapi.PauseRequest{ID: "c"})
	return "pause", s.model.change(tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, "paused"), err
}

func (s *sequence) resume(ctx context.Context) (string, string, error) {
	_, err := s.Resume(ctx, &taskapi.ResumeRequest{ID: "c"})
	return "resume", s.model.change(tasktypes.Status_PAUSED, tasktypes.Status_RUNNING, "resumed"), err
}

// ask makes a call that changes no state.
func (s *sequence) ask(ctx context.Context) (name, want string, err error) {
	id := s.process()
	switch s.next(5) {
	case 0:
		_, err = s.State(ctx, &taskapi.StateRequest{ID: "c", ExecID: id})
		return "state " + id, s.model.about(id), err
	case 1:
		_, err = s.Pids(ctx, &taskapi.PidsRequest{ID: "c"})
		return "pids", s.model.about(""), err
	case 2:
		_, err = s.CloseIO(ctx, &taskapi.CloseIORequest{ID: "c", ExecID: id, Stdin: true})
		return "close stdin " + id, s.model.about(id), err
	case 3:
		_, err = s.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: "c", ExecID: id, Width: 80, Height: 24})
		return "resize " + id, s.model.resize(id), err
	}
	_, err = s.Update(ctx, &taskapi.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte(`{}`)}})
	return "update", s.model.about(""), err
}
