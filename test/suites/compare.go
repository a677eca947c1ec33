package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// verdict is what the two transcripts of a row say.
type verdict int

const (
	same verdict = iota
	explained
	different
	broken // with runc the row has not found what it is about
)

func (r row) verdict(runc, ccv2 string) verdict {
	switch {
	case !strings.Contains(output(runc), r.want):
		return broken
	case runc == ccv2:
		return same
	case r.differs != "" && strings.Contains(output(ccv2), r.wantVM):
		return explained
	}
	return different
}

// output is a transcript without the commands, which have the text as well.
func output(transcript string) string {
	out := strings.Builder{}
	for line := range strings.Lines(transcript) {
		if !strings.HasPrefix(line, "$ ") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// compareRows prints the counts and every difference, and fails for those that
// no row explains.
func compareRows(w io.Writer, suite string, runc, ccv2 results) error {
	if runc == nil || ccv2 == nil {
		return nil
	}
	rows, counts := map[string]row{}, map[verdict]int{}
	for _, r := range rowsOf(suite) {
		rows[r.name] = r
	}
	names := slices.Sorted(maps.Keys(runc))
	for _, name := range names {
		counts[rows[name].verdict(runc[name], ccv2[name])]++
	}
	fmt.Fprintf(w, "\n%s | rows | same | differ, with a reason | differ | broken\n--- | --- | --- | --- | --- | ---\nccv2 | %d | %d | %d | %d | %d\n",
		suite, len(names), counts[same], counts[explained], counts[different], counts[broken])
	for _, name := range names {
		switch r := rows[name]; r.verdict(runc[name], ccv2[name]) {
		case same:
		case explained:
			fmt.Fprintf(w, "\n%s: %s: %s\n", suite, name, r.differs)
		case broken:
			fmt.Fprintf(w, "\n%s: %s: no %q with runc:\n%s", suite, name, r.want, runc[name])
		case different:
			fmt.Fprintf(w, "\n%s: %s differs:\n%s", suite, name, diff(runc[name], ccv2[name]))
		}
	}
	if counts[different]+counts[broken] > 0 {
		return errors.New("there are differences without a reason")
	}
	return nil
}

// diff has the lines of both, those that differ marked. A row has few lines.
func diff(a, b string) string {
	x, y := strings.Split(strings.TrimSuffix(a, "\n"), "\n"), strings.Split(strings.TrimSuffix(b, "\n"), "\n")
	common := make([][]int, len(x)+1) // of x[i:] and y[j:]
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i, line := range slices.Backward(x) {
		for j := len(y) - 1; j >= 0; j-- {
			if line == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	out := strings.Builder{}
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			fmt.Fprintf(&out, "    %s\n", x[i])
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			fmt.Fprintf(&out, "  - %s\n", x[i])
			i++
		default:
			fmt.Fprintf(&out, "  + %s\n", y[j])
			j++
		}
	}
	return out.String()
}
