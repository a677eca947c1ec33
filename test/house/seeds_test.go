package house

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSeeds wants every test that docs/seeds.md names to exist in the package that it names, and
// every row to name one or to say that there is none.
func TestSeeds(t *testing.T) {
	text, err := os.ReadFile("../../docs/seeds.md")
	if err != nil {
		t.Fatal(err)
	}
	places := testPlaces(t)
	name := regexp.MustCompile(`(\w+\.)?\b(Test[A-Z]\w*)`)
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
		for _, found := range name.FindAllString(last, -1) {
			switch len(places[found]) {
			case 0:
				t.Errorf("docs/seeds.md names %s, which does not exist: the name of a test follows the directory of its package, as in proxy.TestReplay", found)
			case 1:
			default:
				t.Errorf("docs/seeds.md names %s, which is in %s: rename one of them", found, strings.Join(places[found], " and "))
			}
		}
	}
	if rows < 50 {
		t.Errorf("only %d rows were found", rows)
	}
}

// testPlaces returns the directories that have a test, by their last part and the test's name.
func testPlaces(t *testing.T) map[string][]string {
	t.Helper()
	places := make(map[string][]string)
	for _, s := range tree(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasSuffix(s.path, "_test.go") {
				dir := filepath.Dir(s.path)
				key := filepath.Base(dir) + "." + f.Name.Name
				places[key] = append(places[key], dir)
			}
		}
	}
	return places
}
