package sandbox

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the diagrams of the states into docs/architecture.md")

// TestDiagrams compares the diagrams in docs/architecture.md with the tables.
func TestDiagrams(t *testing.T) {
	const path = "../../../docs/architecture.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	written := doc
	for _, table := range []struct{ name, diagram string }{
		{"sandbox", diagram(sandboxNext)},
		{"container", diagram(containerNext)},
		{"process", diagram(processNext)},
	} {
		block := regexp.MustCompile(`(?s)<!-- states: ` + table.name + ` -->\n(.*?)<!-- end -->`)
		found := block.FindSubmatchIndex(doc)
		if found == nil {
			t.Fatalf("%s has no block for the states of a %s", path, table.name)
		}
		want := "```\n" + table.diagram + "```\n"
		if got := string(doc[found[2]:found[3]]); got != want && !*update {
			t.Errorf("%s, states of a %s:\n%swant (go test -update writes it):\n%s", path, table.name, got, want)
		}
		written = block.ReplaceAllLiteral(written, []byte("<!-- states: "+table.name+" -->\n"+want+"<!-- end -->"))
	}
	if *update && !bytes.Equal(doc, written) {
		if err := os.WriteFile(path, written, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// diagram has a line for every state of a table, with those that may follow.
func diagram[S interface {
	cmp.Ordered
	fmt.Stringer
}](table map[S][]S) string {
	var b strings.Builder
	for _, from := range slices.Sorted(maps.Keys(table)) {
		if len(table[from]) == 0 {
			fmt.Fprintf(&b, "%s\n", from) // the end
			continue
		}
		names := make([]string, 0, len(table[from]))
		for _, to := range table[from] {
			names = append(names, to.String())
		}
		fmt.Fprintf(&b, "%-8s → %s\n", from, strings.Join(names, ", "))
	}
	return b.String()
}
