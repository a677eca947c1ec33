package house

import (
	"go/ast"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSeeds wants every test that docs/seeds.md names to exist, and every row to name one or to
// say that there is none.
func TestSeeds(t *testing.T) {
	text, err := os.ReadFile("../../docs/seeds.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := make(map[string]bool)
	for _, s := range tree(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && strings.HasSuffix(s.path, "_test.go") {
				exists[f.Name.Name] = true
			}
		}
	}
	name := regexp.MustCompile(`\bTest[A-Z]\w*`)
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 3 || strings.HasPrefix(cells[0], "---") || strings.HasPrefix(strings.TrimSpace(cells[0]), "in the document") {
			continue
		}
		rows++
		last := strings.TrimSpace(cells[len(cells)-1])
		if !name.MatchString(last) && last != "–" {
			t.Errorf("docs/seeds.md names no test for %s", cells[0])
		}
		for _, test := range name.FindAllString(last, -1) {
			if !exists[test] {
				t.Errorf("docs/seeds.md names %s, which does not exist", test)
			}
		}
	}
	if rows < 50 {
		t.Errorf("only %d rows were found", rows)
	}
}
