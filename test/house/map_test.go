package house

import (
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestMap wants every package to have its place on the map of the house.
func TestMap(t *testing.T) {
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Packages\n")
	table, _, _ = strings.Cut(table, "\n## ")
	named := make(map[string]bool) // the last elements of paths: `a/b` or `a/{b,c}`
	for _, names := range regexp.MustCompile("`[^`]+`").FindAllString(table, -1) {
		for _, name := range strings.FieldsFunc(strings.Trim(names, "`"), func(r rune) bool { return strings.ContainsRune("{},", r) }) {
			named[path.Base(name)] = true
		}
	}
	for _, s := range tree(t) {
		if dir := s.dir(); s.product() && !named[path.Base(dir)] {
			t.Errorf("docs/architecture.md does not say what %s is: give it a row under Packages", dir)
			named[path.Base(dir)] = true
		}
	}
}
