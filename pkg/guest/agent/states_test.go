package agent

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func newBareContainer(state containerState) *container {
	return &container{id: "id", state: state, procs: map[string]*process{}}
}

// TestTransitions checks the table against the rules it represents.
func TestTransitions(t *testing.T) {
	for from := range stateCount {
		for next := range stateCount {
			c := newBareContainer(from)
			allowed := transitions[from]&(1<<next) != 0
			err := c.to(next)
			if allowed != (err == nil) || allowed != (c.state == next && from != next) {
				t.Errorf("%s to %s: allowed %t, got %v and state %s", from, next, allowed, err, c.state)
			}
			if next == stateStopped && from > stateCreating && from < stateStopped && !allowed {
				t.Errorf("an init process that ends while its container is %s leaves it so", from)
			}
		}
		if from.String() == "" {
			t.Errorf("state %d has no name", from)
		}
	}
	err := newBareContainer(stateCreating).to(stateRunning)
	if err == nil || err.Error() != "container id is being created" {
		t.Errorf("got %v", err)
	}
}

// TestProcessTransitions has every process end in the states that its waiters
// wait for, once.
func TestProcessTransitions(t *testing.T) {
	for from := range processStateCount {
		for next := range processStateCount {
			c := newBareContainer(stateRunning)
			p := &process{id: "p", container: c, state: from, exited: make(chan struct{}), finished: make(chan struct{})}
			c.init = p
			allowed := processTransitions[from]&(1<<next) != 0
			if got := p.to(next); got != allowed || allowed != (p.state == next && from != next) {
				t.Errorf("%s to %s: allowed %t, got %t and state %s", from, next, allowed, got, p.state)
			}
			if allowed && p.alive() == (next == processExited) {
				t.Errorf("%s to %s: alive is %t", from, next, p.alive())
			}
			if stopped := c.state == stateStopped; stopped != (allowed && next == processExited) {
				t.Errorf("%s to %s of an init process: container is %s", from, next, c.state)
			}
		}
		if from.String() == "" {
			t.Errorf("state %d has no name", from)
		}
	}
}

func TestPodTransitions(t *testing.T) {
	var p pod
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return p.started() }, "pod is not started"},
		{func() error { return p.to(podStarting) }, ""},
		{func() error { return p.to(podStarting) }, "pod is being started"},
		{func() error { return p.to(podNew) }, ""}, // the start has failed
		{func() error { return p.to(podStarting) }, ""},
		{func() error { return p.to(podStarted) }, ""},
		{func() error { return p.started() }, ""},
		{func() error { return p.to(podStarting) }, "pod is already started"},
		{func() error { return p.to(podDestroyed) }, ""},
		{func() error { return p.to(podDestroyed) }, ""},
		{func() error { return p.started() }, "pod is destroyed"},
		{func() error { return p.to(podStarting) }, "pod is destroyed"},
	} {
		got := ""
		if err := step.do(); err != nil {
			got = err.Error()
		}
		if got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

var update = flag.Bool("update", false, "write the states into doc.go and docs/architecture.md")

// diagramOf has a line for every state of a table.
func diagramOf(what string, names []string, table []uint16) string {
	var b strings.Builder
	for from, name := range names {
		var next []string
		for to, other := range names {
			if table[from]&(1<<to) != 0 {
				next = append(next, other)
			}
		}
		if len(next) > 0 {
			name += strings.Repeat(" ", 15-len(name)) + " → " + strings.Join(next, ", ")
		}
		fmt.Fprintf(&b, "%-10s %s\n", what, name)
	}
	return b.String()
}

// TestDocumentedStates compares the documentation with the tables.
func TestDocumentedStates(t *testing.T) {
	diagram := diagramOf("pod", podStateNames[:], podTransitions[:]) +
		diagramOf("container", stateNames[:], transitions[:]) +
		diagramOf("process", processStateNames[:], processTransitions[:])
	for _, doc := range []struct{ path, block, want string }{
		{"doc.go", `(?m)^//\tpod .*\n(//\t.*\n)*`, regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(diagram, "//\t$1")},
		{
			"../../../docs/architecture.md", `(?s)<!-- states: agent -->\n.*?<!-- end -->`,
			"<!-- states: agent -->\n```\n" + diagram + "```\n<!-- end -->",
		},
	} {
		text, err := os.ReadFile(doc.path)
		if err != nil {
			t.Fatal(err)
		}
		block := regexp.MustCompile(doc.block)
		if got := string(block.Find(text)); got != doc.want && *update {
			if err := os.WriteFile(doc.path, block.ReplaceAllLiteral(text, []byte(doc.want)), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got != doc.want {
			t.Errorf("states in %s:\n%swant (go test -update writes it):\n%s", doc.path, got, doc.want)
		}
	}
}

// TestStateWriters holds the package to one writer of states.
func TestStateWriters(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	write := regexp.MustCompile(`\.state\s*(=[^=]|\+\+|--)`)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := len(write.FindAll(b, -1))
		found += n
		if n > 0 && file != "states.go" {
			t.Errorf("%s writes a state without the table", file)
		}
	}
	if found != 3 {
		t.Errorf("states are written in %d places, want one for each of the 3 tables", found)
	}
}

// TestComplete ends claims, also of an operation whose container has ended
// meanwhile.
func TestComplete(t *testing.T) {
	for _, tt := range []struct{ state, want containerState }{
		{stateStarting, stateRunning},
		{stateStopped, stateStopped},
	} {
		c := newBareContainer(tt.state)
		c.complete(stateStarting, stateRunning)
		if c.state != tt.want {
			t.Errorf("%s became %s, want %s", tt.state, c.state, tt.want)
		}
	}
}
