package operator

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// Table is what people read: columns, of which the first row is the head.
type Table struct{ w *tabwriter.Writer }

// NewTable begins a table with its head.
func NewTable(out io.Writer, head ...string) Table {
	t := Table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.Row(head...)
	return t
}

// Row adds a row; an empty cell is a dash, so that programs can count columns as well.
func (t Table) Row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// Flush ends the table.
func (t Table) Flush() error { return t.w.Flush() }

// PrintJSON prints what programs read.
func PrintJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Mebibytes is a size for people.
func Mebibytes(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// Span is a time for people, in its two largest units.
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Stamp is an instant for people.
func Stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// Short is enough of an id to find a sandbox by.
func Short(id string) string {
	const hex, enough = 64, 13
	if len(id) == hex {
		return id[:enough]
	}
	return id
}

// Line makes text fit for a terminal.
func Line(s string) string { return printable.Line(s, printable.MaxText) }
