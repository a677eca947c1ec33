package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// stats are what a sandbox uses.
type stats struct {
	At         time.Time             `json:"at"`
	Processes  []sandboxes.Process   `json:"processes"`
	Guest      *debugapi.Guest       `json:"guest,omitempty"`
	Interfaces []sandboxes.Interface `json:"interfaces,omitempty"` // of the pod's network namespace, as the host sees it
	// Disks, Streams and Messages are what the guest has done with each disk, what has passed of each process's streams, and
	// between the shim and the guest.
	Disks    []debugapi.Disk        `json:"disks,omitempty"`
	Streams  []debugapi.StreamCount `json:"streams,omitempty"`
	Messages []debugapi.WireCount   `json:"messages,omitempty"`
	Problems []string               `json:"problems,omitempty"`
}

func statsCommand(t *tool) *cli.Command {
	var watch, messages bool
	var every time.Duration
	return &cli.Command{
		Name: "stats", Usage: "print what a sandbox uses", ArgsUsage: "ID|POD",
		Description: "Memory and time of the shim, QEMU and virtiofsd, the guest's memory, and counters: of the interfaces in the pod's network namespace, " +
			"the disks, the streams of each process and, with --messages, what has passed between the shim and the guest, by kind.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "print it again and again, with rates", Destination: &watch},
			&cli.BoolFlag{Name: "messages", Usage: "also messages and bytes between the shim and the guest, by kind", Destination: &messages},
			&cli.DurationFlag{Name: "interval", Usage: "how often", Value: 2 * time.Second, Destination: &every},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.One(c)
			if err != nil {
				return err
			}
			if every <= 0 {
				return sandboxes.UsageError("--interval %s: want more than 0", every)
			}
			var before *stats
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for {
				now := t.getStats(ctx, r)
				if !messages && !t.JSON {
					now.Messages = nil
				}
				if err := t.printStats(before, now); err != nil || !watch {
					return err
				}
				if now.Processes[0].State == sandboxes.Gone {
					return sandboxes.Explain(r, context.DeadlineExceeded)
				}
				before = &now
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
}

// getStats gets what there is; what does not answer is a problem.
func (t *tool) getStats(ctx context.Context, r sandboxes.Record) stats {
	s := stats{At: time.Now()}
	for _, p := range append([]store.Process{r.Saved.Shim}, r.Saved.Processes...) {
		seen := sandboxes.Process{Name: p.Name, PID: p.PID}
		if p.Alive() {
			seen = sandboxes.Measure(p.Name, p.PID)
		}
		s.Processes = append(s.Processes, seen)
		if seen.State == sandboxes.Stopped {
			s.Problems = append(s.Problems, fmt.Sprintf("%s (pid %d) is stopped by a signal", p.Name, p.PID))
		}
	}
	s.Interfaces = sandboxes.Interfaces(r.Saved)
	const asks = 2 // the guest and the VMM, 2 s each
	info, _, err := sandboxes.AskInfo(ctx, r, true, t.Limit+asks*2*time.Second)
	if err != nil {
		s.Problems = append(s.Problems, operator.Line(sandboxes.Explain(r, err).Error()))
		return s
	}
	s.Guest = info.Guest
	if info.VM != nil {
		s.Disks = info.VM.Disks
	}
	bounded, cancel := context.WithTimeout(ctx, t.Limit)
	defer cancel()
	if c, err := sandboxes.AskCounters(bounded, r); err == nil {
		s.Streams, s.Messages = c.Streams, c.Wire
	} else {
		s.Problems = append(s.Problems, operator.Line(sandboxes.Explain(r, err).Error()))
	}
	s.Problems = append(s.Problems, sortedErrors(info.Errors)...)
	return s
}

// printStats prints what is used now; before is nil, or what was used earlier.
func (t *tool) printStats(before *stats, now stats) error {
	if t.JSON {
		return operator.PrintJSON(t.Stdout, now)
	}
	out := operator.NewTable(t.Stdout, "PROCESS", "PID", "STATE", "MEMORY", "CPU", "CPU NOW")
	for i, p := range now.Processes {
		state := p.State
		if state == sandboxes.Gone {
			state = "gone"
		}
		rate := ""
		if before != nil && i < len(before.Processes) {
			rate = fmt.Sprintf("%.1f %%", 100*float64(p.CPUNanoseconds-before.Processes[i].CPUNanoseconds)/float64(now.At.Sub(before.At)))
		}
		out.Row(p.Name, fmt.Sprint(p.PID), state, operator.Mebibytes(p.PSSBytes), operator.Span(time.Duration(p.CPUNanoseconds)), rate)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if g := now.Guest; g != nil {
		fmt.Fprintf(t.Stdout, "\nguest: %s of %s available, agent %s\n", operator.Mebibytes(int64(g.MemAvailable)), operator.Mebibytes(int64(g.MemTotal)), operator.Mebibytes(int64(g.AgentRSS)))
	}
	fmt.Fprintln(t.Stdout)
	out = operator.NewTable(t.Stdout, "INTERFACE", "RX BYTES", "RX PACKETS", "RX ERRORS", "RX DROPPED", "TX BYTES", "TX PACKETS", "TX ERRORS", "TX DROPPED")
	for _, n := range now.Interfaces {
		out.Row(operator.Line(n.Name), fmt.Sprint(n.RXBytes), fmt.Sprint(n.RXPackets), fmt.Sprint(n.RXErrors), fmt.Sprint(n.RXDropped),
			fmt.Sprint(n.TXBytes), fmt.Sprint(n.TXPackets), fmt.Sprint(n.TXErrors), fmt.Sprint(n.TXDropped))
	}
	if err := errors.Join(out.Flush(), printCounters(t.Stdout, now)); err != nil {
		return err
	}
	for _, problem := range now.Problems {
		fmt.Fprintf(t.Stdout, "problem: %s\n", problem)
	}
	return nil
}
