package operate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// States of a sandbox that its shim cannot tell; the others are those of pkg/shim/sandbox.
const (
	stateDead    = "dead"    // its shim is gone
	stateHung    = "hung"    // its shim does not answer
	stateUnknown = "unknown" // its record cannot be read
	stateEnded   = "ended"   // it has left a journal
)

// view is one sandbox, as ps shows it.
type view struct {
	Namespace    string              `json:"namespace"`
	ID           string              `json:"id"`
	PodNamespace string              `json:"pod_namespace,omitempty"`
	Pod          string              `json:"pod,omitempty"`
	State        string              `json:"state"`
	Created      time.Time           `json:"created"`
	VM           vmView              `json:"vm"`
	Memory       int64               `json:"pss_bytes"`       // of all its processes
	CPU          int64               `json:"cpu_nanoseconds"` // of all its processes
	Processes    []sandboxes.Process `json:"processes"`
	Containers   []container         `json:"containers,omitempty"`
	// Problems are what an operator should know.
	Problems []string `json:"problems,omitempty"`
	Dir      string   `json:"dir"`
}

// vmView is the VM as its record has it.
type vmView struct {
	CPUs        int    `json:"cpus,omitempty"`
	MemoryMiB   int    `json:"memory_mib,omitempty"`
	Accelerator string `json:"accelerator,omitempty"`
	Source      string `json:"source,omitempty"`
}

// container is a container as ps shows it.
type container struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	State string `json:"state"`
}

// atOnce is how many shims are asked at the same time.
const atOnce = 32

// viewAll looks at all sandboxes side by side. A shim that takes longer than limit to
// answer is hung.
func viewAll(ctx context.Context, all []sandboxes.Record, limit time.Duration) []view {
	views := make([]view, len(all))
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			views[i] = viewOne(ctx, r, limit)
		})
	}
	wg.Wait()
	return views
}

// viewOne looks at one.
func viewOne(ctx context.Context, r sandboxes.Record, limit time.Duration) view {
	if r.Err != nil {
		return view{State: stateUnknown, Dir: r.Dir.Path(), Problems: []string{operator.Line(r.Err.Error())}}
	}
	s := r.Saved
	v := view{
		Namespace: s.Namespace, ID: s.ID, PodNamespace: operator.Line(s.About.PodNamespace), Pod: operator.Line(s.About.Pod), Created: s.Created, Dir: r.Dir.Path(),
		VM: vmView{CPUs: s.About.CPUs, MemoryMiB: s.About.MemoryMiB, Accelerator: s.About.Accelerator, Source: s.About.Source},
	}
	for _, p := range append([]store.Process{s.Shim}, s.Processes...) {
		seen := sandboxes.Process{Name: p.Name, PID: p.PID}
		if p.Alive() {
			seen = sandboxes.Measure(p.Name, p.PID)
		}
		v.Processes = append(v.Processes, seen)
		v.Memory += seen.PSSBytes
		v.CPU += seen.CPUNanoseconds
		if seen.State == sandboxes.Stopped {
			v.Problems = append(v.Problems, fmt.Sprintf("%s (pid %d) is stopped by a signal", p.Name, p.PID))
		}
	}
	if !s.Shim.Alive() {
		v.State = stateDead
		v.Problems = append(v.Problems, sandboxes.Silence(r))
		return v
	}
	info, _, err := sandboxes.AskInfo(ctx, r, false, limit)
	if err != nil {
		v.State = stateHung
		if v.Processes[0].State != sandboxes.Stopped {
			v.Problems = append(v.Problems, sandboxes.Silence(r))
		}
		return v
	}
	v.State = info.State
	if info.Paused {
		v.State += ",paused"
	}
	if info.Unhealthy != "" {
		v.Problems = append(v.Problems, operator.Line(info.Unhealthy))
	}
	if info.Lost != "" {
		v.Problems = append(v.Problems, operator.Line(info.Lost))
	}
	for _, c := range info.Containers {
		v.Containers = append(v.Containers, container{ID: c.ID, Name: c.Name, State: c.State})
	}
	v.Problems = append(v.Problems, stuck(info)...)
	return v
}

// viewEnded are the sandboxes that have left a journal, the last one first.
func viewEnded(stateDir string) ([]view, error) {
	paths, err := store.Ended(stateDir)
	if err != nil {
		return nil, err
	}
	var views []view
	for _, path := range slices.Backward(paths) {
		j, err := sandboxes.ReadJournal(path)
		if err != nil || j.Sandbox.ID == "" {
			continue // it was just removed
		}
		v := view{
			Namespace: j.Sandbox.Namespace, ID: j.Sandbox.ID, PodNamespace: operator.Line(j.Sandbox.PodNamespace), Pod: operator.Line(j.Sandbox.Pod),
			State: stateEnded, Created: j.Sandbox.Created, Dir: path,
		}
		switch {
		case j.Counters == nil:
			v.Problems = []string{"its shim has died"}
		case j.Counters.Failure != "":
			v.Problems = []string{"it has ended because of " + operator.Line(j.Counters.Failure)}
		}
		views = append(views, v)
	}
	return views, nil
}

// slow is how long a step of the start takes that is worth a word.
const slow = 5 * time.Second

// stuck names the step of the start that takes long.
func stuck(info debugapi.Info) (problems []string) {
	for _, p := range info.Phases {
		if took := time.Duration(p.Nanoseconds); p.Running && took > slow {
			problems = append(problems, fmt.Sprintf("starts: %s for %s", p.Name, took.Round(time.Second)))
		}
	}
	return problems
}
