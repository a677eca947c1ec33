package operate

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// stats are what a sandbox uses.
type stats struct {
	At         time.Time           `json:"at"`
	Processes  []sandboxes.Process `json:"processes"`
	Guest      *debugapi.Guest     `json:"guest,omitempty"`
	Interfaces []netInterface      `json:"interfaces,omitempty"` // of the pod's network namespace, as the host sees it
	Problems   []string            `json:"problems,omitempty"`
}

// netInterface has the counters of an interface.
type netInterface struct {
	Name      string `json:"name"`
	RXBytes   uint64 `json:"rx_bytes"`
	RXPackets uint64 `json:"rx_packets"`
	RXErrors  uint64 `json:"rx_errors"`
	RXDropped uint64 `json:"rx_dropped"`
	TXBytes   uint64 `json:"tx_bytes"`
	TXPackets uint64 `json:"tx_packets"`
	TXErrors  uint64 `json:"tx_errors"`
	TXDropped uint64 `json:"tx_dropped"`
}

func statsCommand(t *operator) *cli.Command {
	var watch bool
	var every time.Duration
	return &cli.Command{
		Name: "stats", Usage: "print what a sandbox uses", ArgsUsage: "ID|POD",
		Description: "Memory and time of the shim, QEMU and virtiofsd, the guest's memory, and the counters of the interfaces in the pod's network namespace.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "print it again and again, with rates", Destination: &watch},
			&cli.DurationFlag{Name: "interval", Usage: "how often", Value: 2 * time.Second, Destination: &every},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := t.one(c)
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
func (t *operator) getStats(ctx context.Context, r sandboxes.Record) stats {
	s := stats{At: time.Now()}
	for _, p := range append([]store.Process{r.Saved.Shim}, r.Saved.Processes...) {
		seen := sandboxes.Process{Name: p.Name, PID: p.PID}
		if p.Alive() {
			seen = sandboxes.Measure(p.Name, p.PID)
		}
		s.Processes = append(s.Processes, seen)
		if p.Name == "qemu" {
			s.Interfaces = interfaces(p.PID)
		}
		if seen.State == sandboxes.Stopped {
			s.Problems = append(s.Problems, fmt.Sprintf("%s (pid %d) is stopped by a signal", p.Name, p.PID))
		}
	}
	const asks = 2 // the guest and the VMM, 2 s each
	info, _, err := sandboxes.AskInfo(ctx, r, true, t.limit+asks*2*time.Second)
	if err != nil {
		s.Problems = append(s.Problems, line(sandboxes.Explain(r, err).Error()))
		return s
	}
	s.Guest = info.Guest
	s.Problems = append(s.Problems, sortedErrors(info.Errors)...)
	return s
}

// interfaces reads the counters of the network namespace of a process.
func interfaces(pid int) []netInterface {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev") // of one that has ended there are none
	var all []netInterface
	for text := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(text, ":")
		fields := strings.Fields(rest)
		const columns = 16
		if !ok || len(fields) != columns {
			continue // the head
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(fields[i], 10, 64); return v }
		all = append(all, netInterface{
			Name: strings.TrimSpace(name), RXBytes: n(0), RXPackets: n(1), RXErrors: n(2), RXDropped: n(3),
			TXBytes: n(8), TXPackets: n(9), TXErrors: n(10), TXDropped: n(11),
		})
	}
	return all
}

// printStats prints what is used now; before is nil, or what was used earlier.
func (t *operator) printStats(before *stats, now stats) error {
	if t.json {
		return printJSON(t.Stdout, now)
	}
	out := newTable(t.Stdout, "PROCESS", "PID", "STATE", "MEMORY", "CPU", "CPU NOW")
	for i, p := range now.Processes {
		state := p.State
		if state == sandboxes.Gone {
			state = "gone"
		}
		rate := ""
		if before != nil && i < len(before.Processes) {
			rate = fmt.Sprintf("%.1f %%", 100*float64(p.CPUNanoseconds-before.Processes[i].CPUNanoseconds)/float64(now.At.Sub(before.At)))
		}
		out.row(p.Name, fmt.Sprint(p.PID), state, mebibytes(p.PSSBytes), span(time.Duration(p.CPUNanoseconds)), rate)
	}
	if err := out.flush(); err != nil {
		return err
	}
	if g := now.Guest; g != nil {
		fmt.Fprintf(t.Stdout, "\nguest: %s of %s available, agent %s\n", mebibytes(int64(g.MemAvailable)), mebibytes(int64(g.MemTotal)), mebibytes(int64(g.AgentRSS)))
	}
	fmt.Fprintln(t.Stdout)
	out = newTable(t.Stdout, "INTERFACE", "RX BYTES", "RX PACKETS", "RX ERRORS", "RX DROPPED", "TX BYTES", "TX PACKETS", "TX ERRORS", "TX DROPPED")
	for _, n := range now.Interfaces {
		out.row(line(n.Name), fmt.Sprint(n.RXBytes), fmt.Sprint(n.RXPackets), fmt.Sprint(n.RXErrors), fmt.Sprint(n.RXDropped),
			fmt.Sprint(n.TXBytes), fmt.Sprint(n.TXPackets), fmt.Sprint(n.TXErrors), fmt.Sprint(n.TXDropped))
	}
	if err := out.flush(); err != nil {
		return err
	}
	for _, problem := range now.Problems {
		fmt.Fprintf(t.Stdout, "problem: %s\n", problem)
	}
	return nil
}
