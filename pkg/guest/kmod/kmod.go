package kmod

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Module is one module of an image.
type Module struct {
	Name    string   // as the kernel names it, with underscores
	Path    string   // in the guest
	Needs   []string // names of those to load before it, in order
	Aliases []string // patterns of what it can be asked for as, beside its name
}

// Table is the modules of an image.
type Table []Module

// Keywords of the text form. Each module is a line of its own, followed by
// what belongs to it.
const (
	keyModule = "module" // NAME PATH
	keyNeeds  = "needs"  // NAME
	keyAlias  = "alias"  // PATTERN
)

// Append appends the table's text form. Patterns that do not fit in it,
// with spaces, are left out; nothing that the kernel asks for has any.
func (t Table) Append(b []byte) []byte {
	for _, m := range t {
		b = fmt.Appendln(b, keyModule, m.Name, m.Path)
		for _, name := range m.Needs {
			b = fmt.Appendln(b, keyNeeds, name)
		}
		for _, pattern := range m.Aliases {
			if !strings.ContainsAny(pattern, " \t\n") {
				b = fmt.Appendln(b, keyAlias, pattern)
			}
		}
	}
	return b
}

// Parse reads the text form.
func Parse(text string) (Table, error) {
	var t Table
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, " ")
		if key == keyModule {
			name, file, ok := strings.Cut(value, " ")
			if !ok {
				return nil, fmt.Errorf("parse module table: line %q: want a name and a path", line)
			}
			t = append(t, Module{Name: name, Path: file})
			continue
		}
		if len(t) == 0 {
			return nil, fmt.Errorf("parse module table: line %q before the first module", line)
		}
		last := &t[len(t)-1]
		switch key {
		case keyNeeds:
			last.Needs = append(last.Needs, value)
		case keyAlias:
			last.Aliases = append(last.Aliases, value)
		default:
			return nil, fmt.Errorf("parse module table: line %q: unknown keyword", line)
		}
	}
	return t, nil
}

// Find returns the paths of the modules that the kernel means by a name or an
// alias, and of what they need, in the order in which they are to be loaded. It
// returns none when the image has no such module.
func (t Table) Find(request string) []string {
	request = fold(request)
	var paths []string
	seen := map[string]bool{}
	for _, m := range t {
		if m.matches(request) {
			paths = t.collect(paths, m, seen)
		}
	}
	return paths
}

// matches reports whether the module is asked for; request is folded.
func (m *Module) matches(request string) bool {
	return fold(m.Name) == request || slices.ContainsFunc(m.Aliases, func(pattern string) bool {
		ok, err := path.Match(fold(pattern), request)
		return ok && err == nil // a malformed pattern matches nothing
	})
}

// collect appends what m needs and then m itself. What is not in the image is
// part of the kernel.
func (t Table) collect(paths []string, m Module, seen map[string]bool) []string {
	if seen[m.Name] {
		return paths
	}
	seen[m.Name] = true
	for _, need := range m.Needs {
		i := slices.IndexFunc(t, func(o Module) bool { return o.Name == need })
		if i >= 0 {
			paths = t.collect(paths, t[i], seen)
		}
	}
	return append(paths, m.Path)
}

// fold makes hyphens and underscores the same, as they are for module names,
// except within the brackets of a pattern, where a hyphen means a range.
func fold(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b := []byte(s)
	within := false
	for i, c := range b {
		switch {
		case c == '[':
			within = true
		case c == ']':
			within = false
		case c == '-' && !within:
			b[i] = '_'
		}
	}
	return string(b)
}
