package house

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// check compares the findings of a rule with its exceptions and returns what is
// wrong: a finding that is none, one that has grown, and an exception that is
// not needed any longer.
func check(r rule, all []*source, exceptions map[string]int) []string {
	var wrong []string
	seen := make(map[string]bool)
	for _, f := range r.find(all) {
		most, excepted := exceptions[f.subject]
		seen[f.subject] = true
		switch {
		case !excepted:
			wrong = append(wrong, f.where+"; "+r.fix)
		case f.size > most:
			wrong = append(wrong, f.where+"; it is an exception that must not grow: "+r.fix)
		}
	}
	for subject := range exceptions {
		if !seen[subject] {
			wrong = append(wrong, subject+" keeps the budget now: take it out of the exceptions")
		}
	}
	slices.Sort(wrong)
	return wrong
}

func TestHouse(t *testing.T) {
	all := tree(t)
	const few = 100
	if len(all) < few {
		t.Fatalf("only %d files were found", len(all))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, wrong := range check(r, all, exceptions[r.name]) {
				t.Error(wrong)
			}
		})
	}
	for name := range exceptions {
		if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == name }) {
			t.Errorf("exceptions to %q, which is no rule", name)
		}
	}
}

// A rule that cannot fail proves nothing.
func TestRulesCanFail(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	for _, tt := range []struct {
		rule, path, text string
		want             string // the subject; "" for none
	}{
		{"file", "pkg/a/a.go", "package a\n" + strings.Repeat("\n", 399), ""},
		{"file", "pkg/a/a_test.go", "package a\n" + strings.Repeat("\n", 400), "pkg/a/a_test.go"},
		{"func", "test/a/a.go", "package a\nfunc f() {\n" + lines(60) + "}\n", ""},
		{"func", "test/a/a.go", "package a\nfunc f() {\n" + lines(61) + "}\n", "test/a.f"},
		{"func", "test/a/a.go", "package a\nfunc (t *T[A]) f() {\n" + lines(61) + "}\n", "test/a.T.f"},
		{"func", "test/a/a.go", "package a\nfunc f() {\n// c\n/* c\nc */\n" + lines(60) + "}\n", ""},
		{"func", "test/a/a.go", "package a\nfunc f() {\n_ = 0 // c\n" + lines(60) + "}\n", "test/a.f"},
		{"package", "pkg/a/a.go", "package a\n" + strings.Repeat("\n", 1999), ""},
		{"package", "pkg/a/a.go", "package a\n" + strings.Repeat("\n", 2000), "pkg/a"},
		{"package", "pkg/a/a_test.go", "package a\n" + strings.Repeat("\n", 2000), ""},
		{"fields", "pkg/a/a.go", "package a\ntype T struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o int }\n", ""},
		{"fields", "pkg/a/a.go", "package a\ntype T struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o int; p T2 }\n", "pkg/a.T"},
		{"fields", "pkg/a/a.go", "package a\ntype T struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o int; T2 }\n", "pkg/a.T"},
		{"methods", "pkg/a/a.go", "package a\n" + strings.Repeat("func (t *T) m() {}\n", 25), ""},
		{"methods", "pkg/a/a.go", "package a\n" + strings.Repeat("func (t T) m() {}\n", 26), "pkg/a.T"},
		{"dialect", "pkg/a/a.go", "package a\nvar d hyperstart.Dialect\n", ""},
		{"dialect", "pkg/a/a.go", "package a\nvar d = hyperstart.DialectCCv2\n", "pkg/a/a.go"},
		{"dialect", "pkg/guest/a/a.go", "package a\nvar d = hyperstart.DialectCCv2\n", ""},
		{"dialect", "pkg/a/a.go", "package a\nvar d = guest.Dialect().HasCalls()\n", "pkg/a/a.go"},
		{"dialect", "pkg/a/a.go", "package a\nvar d = guest.Dialect().String()\n", ""},
		{"doc", "pkg/a/doc.go", "// Package a is.\npackage a\n", ""},
		{"doc", "pkg/a/a.go", "// Package a is.\npackage a\n", "pkg/a"},
		{"doc", "pkg/a/doc.go", "package a\n", "pkg/a"},
		{"doc", "cmd/a/main.go", "// Program a is.\npackage main\n", ""},
		{"doc", "cmd/a/doc.go", "// Program a is.\npackage main\n", "cmd/a"},
		{"state", "pkg/a/a.go", "package a\nfunc f() { t.state = b; t.state2 = c; state := d }\n", "pkg/a/a.go"},
		{"state", "pkg/a/a.go", "package a\nfunc f() { t := T{state: b}; if t.state == c {} }\n", ""},
		{"state", "pkg/a/state.go", "package a\nfunc f() { t.state = b }\n", ""},
	} {
		s, err := parse(tt.path, []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(rules, func(r rule) bool { return r.name == tt.rule })
		got := ""
		for _, f := range rules[i].find([]*source{s}) {
			got = f.subject
		}
		if got != tt.want {
			t.Errorf("%s of %s %.40q: got %q, want %q", tt.rule, tt.path, tt.text, got, tt.want)
		}
	}
}

// TestExceptions do not grow, and go when they are not needed.
func TestExceptions(t *testing.T) {
	r := rule{"r", "shrink it", func([]*source) []finding {
		return []finding{{"new", 5, "new has 5"}, {"known", 5, "known has 5"}, {"grown", 5, "grown has 5"}}
	}}
	got := check(r, nil, map[string]int{"known": 5, "grown": 4, "shrunk": 9})
	want := []string{
		"grown has 5; it is an exception that must not grow: shrink it",
		"new has 5; shrink it",
		"shrunk keeps the budget now: take it out of the exceptions",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
