package podvm

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/blockdev"
)

// Phase is one step of the boot.
type Phase struct {
	Name  string
	Begin time.Time
	End   time.Time // zero while it lasts
	Err   error     // of the step that failed
}

// progress is how far the boot is, for those who look at it from outside.
type progress struct {
	mu     sync.Mutex // guards what follows
	phases []Phase
	guest  client.Guest // nil before the boot has succeeded
	source string
}

// do runs a step.
func (p *progress) do(ctx context.Context, s step) error {
	name := cmp.Or(s.name, s.phase)
	p.mu.Lock()
	p.phases = append(p.phases, Phase{Name: name, Begin: time.Now()})
	last := len(p.phases) - 1
	p.mu.Unlock()
	var err error
	end := activity.Of(ctx).Part(name, &err)
	err = s.do(ctx)
	end()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phases[last].End, p.phases[last].Err = time.Now(), err
	return err
}

// reached ends the boot.
func (p *progress) reached(guest client.Guest, source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guest, p.source = guest, source
}

// Report is what is known of a machine at a moment, in any state.
type Report struct {
	Config Config
	Source string // "boot", "template" or "spare"; "" before the boot has succeeded
	Phases []Phase
	Paused bool
	Lost   error // why the VM has ended; nil as long as it has not
	// LostPart is what has ended first, a word; "" when the VM was ended.
	LostPart string
	// Guest is nil before the boot has succeeded, VM before there is one.
	Guest client.Guest
	VM    hypervisor.VM
	// Attached are the disks that an operator has attached.
	Attached []blockdev.Attached
}

// Report returns what is known of the machine. It waits for nothing.
func (m *Machine) Report() Report {
	r := Report{Config: m.opts.Config, Paused: m.Paused(), Lost: m.Err(), LostPart: m.loss.whose(), VM: m.running(), Attached: m.disks.Attached()}
	m.progress.mu.Lock()
	defer m.progress.mu.Unlock()
	r.Source, r.Guest = m.progress.source, m.progress.guest
	r.Phases = append(r.Phases, m.progress.phases...)
	return r
}

// note tells what becomes of the machine.
func note(m *Machine, kind, text string) {
	if m.opts.Note != nil {
		m.opts.Note(kind, text)
	}
}

// lastWords is how many lines of the console the note about the end of a VM has.
const lastWords = 5

// noteEnd tells that the VM has ended, with the guest's last words.
func noteEnd(m *Machine, cause error) {
	text := cause.Error()
	if lines := m.Console(); len(lines) > 0 {
		text += "; last console lines: " + strings.Join(lines[max(0, len(lines)-lastWords):], " | ")
	}
	note(m, "vm-ended", text)
}
