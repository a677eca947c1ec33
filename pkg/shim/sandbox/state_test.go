package sandbox

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

// machines are the three tables, with what each allows.
var machines = []struct {
	name    string
	states  int
	allowed string // rows are from, columns to
	try     func(from, to int) (now int, err error)
}{
	{
		name: "sandbox", states: len(stateNames),
		//        new booting ready stopping stopped
		allowed: ". x . . x" + // new
			" . . x x ." + // booting
			" . . . x ." + // ready
			" . . . . x" + // stopping
			" . . . . .", // stopped
		try: func(from, to int) (int, error) {
			s := State(from)
			err := move(sandboxNext, "it", &s, State(to))
			return int(s), err
		},
	},
	{
		name: "container", states: len(containerStateNames),
		//        creating created starting running pausing paused resuming exited deleted
		allowed: ". x . . . . . . ." + // creating
			" . . x . . . . x ." + // created
			" . . . x . . . x ." + // starting
			" . . . . x . . x ." + // running
			" . . . x . x . x ." + // pausing
			" . . . . . . x x ." + // paused
			" . . . x . x . x ." + // resuming
			" . . . . . . . . x" + // exited
			" . . . . . . . . .", // deleted
		try: func(from, to int) (int, error) {
			s := ContainerState(from)
			err := move(containerNext, "it", &s, ContainerState(to))
			return int(s), err
		},
	},
	{
		name: "process", states: len(processStateNames),
		//        created starting running exited deleted
		allowed: ". x . x ." + // created
			" . . x x ." + // starting
			" . . . x ." + // running
			" . . . . x" + // exited
			" . . . . .", // deleted
		try: func(from, to int) (int, error) {
			s := ProcessState(from)
			err := move(processNext, "it", &s, ProcessState(to))
			return int(s), err
		},
	},
}

// TestTransitions tries every pair of states of the three machines.
func TestTransitions(t *testing.T) {
	for _, m := range machines {
		for from := range m.states {
			for to := range m.states {
				want := m.allowed[2*(from*m.states+to)] == 'x'
				now, err := m.try(from, to)
				var refused *TransitionError
				switch {
				case want && (err != nil || now != to):
					t.Errorf("%s: %d to %d: %v, now %d", m.name, from, to, err, now)
				case !want && (!errors.As(err, &refused) || !errors.Is(err, errdefs.ErrFailedPrecondition) || now != from):
					t.Errorf("%s: %d to %d: %v, now %d", m.name, from, to, err, now)
				}
			}
		}
	}
}

func TestTransitionErrorNamesAll(t *testing.T) {
	s := ContainerExited
	err := move(containerNext, "container c", &s, ContainerRunning)
	if want := "container c is exited and cannot become running"; fmt.Sprint(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}
