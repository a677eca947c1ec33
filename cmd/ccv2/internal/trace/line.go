package trace

import (
	"fmt"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
)

// Filter says which messages are wanted. The zero value wants all.
type Filter struct {
	Layers []string
	// Text is in the line about a message.
	Text string
}

// Wants reports whether a message is wanted. line is what is said of it.
func (f Filter) Wants(m wiretap.Message, line string) bool {
	found := len(f.Layers) == 0
	for _, l := range f.Layers {
		found = found || l == m.Layer.String()
	}
	return found && strings.Contains(line, f.Text)
}

// Line is a message for people.
func Line(m wiretap.Message) string {
	d := wiretap.Describe(m)
	direction := "→ guest"
	if m.ToHost {
		direction = "← guest"
	}
	if m.Layer == wiretap.Frame {
		direction = "→ proxy"
		if m.ToHost {
			direction = "← proxy"
		}
	}
	line := fmt.Sprintf("%s  %-5s %s  %-24s %-14s %7d  %s", time.Unix(0, m.Time).Local().Format("15:04:05.000000"), m.Layer, direction, d.Kind, d.ID, m.Size, d.Text)
	return strings.TrimRight(line, " ")
}

// Entry is a message for programs.
type Entry struct {
	Time   time.Time `json:"time"`
	Layer  string    `json:"layer"`
	ToHost bool      `json:"to_host"`
	Kind   string    `json:"kind"`
	ID     string    `json:"id,omitempty"`
	Size   int       `json:"size"`
	Text   string    `json:"text,omitempty"`
}

// EntryOf is the message for programs.
func EntryOf(m wiretap.Message) Entry {
	d := wiretap.Describe(m)
	return Entry{Time: time.Unix(0, m.Time), Layer: m.Layer.String(), ToHost: m.ToHost, Kind: d.Kind, ID: d.ID, Size: m.Size, Text: d.Text}
}
