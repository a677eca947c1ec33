package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// The budget.
const (
	maxFile    = 400  // lines
	maxFunc    = 60   // lines of the body that are not comments
	maxPackage = 2000 // lines without tests
	maxFields  = 15
	maxMethods = 25
)

// finding is where a rule does not hold. An exception names its subject.
type finding struct {
	subject string
	size    int // of the subject, or its number among the findings there
	where   string
}

// rule is one line of the budget.
type rule struct {
	name string
	fix  string // what to do about a finding
	find func([]*source) []finding
}

var rules = []rule{
	{"file", "split it by subject, not by length", files},
	{"func", "give a part of it a name", funcs},
	{"package", "move a part with a state of its own into a package of its own", packages},
	{"fields", "put the fields that change together into a struct of their own, with its lock", fields},
	{"methods", "move methods to the part that they are about", methods},
	{"dialect", "let pkg/guest/client hide it behind a method of its Guest", dialects},
	{"doc", "say in doc.go what the package owns, its states, its goroutines, its lock order and what it must never know", docs},
	{"state", "move it by the table of transitions in state.go", states},
}

// files are longer than a file may be.
func files(all []*source) (found []finding) {
	for _, s := range all {
		if s.lines > maxFile {
			found = append(found, finding{s.path, s.lines, fmt.Sprintf("%s has %d lines, at most %d", s.path, s.lines, maxFile)})
		}
	}
	return found
}

// funcs are longer than a function may be.
func funcs(all []*source) (found []finding) {
	for _, s := range all {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := bodyLines(s, f.Body); n > maxFunc {
				subject := s.dir() + "." + receiver(f) + f.Name.Name
				found = append(found, finding{subject, n, fmt.Sprintf("%s:%d: %s has %d lines, at most %d", s.path, s.line(f.Pos()), f.Name.Name, n, maxFunc)})
			}
		}
	}
	return found
}

// bodyLines counts the lines that are not comments alone.
func bodyLines(s *source, body *ast.BlockStmt) int {
	first, last := s.line(body.Lbrace)+1, s.line(body.Rbrace)
	code := make(map[int]bool)
	ast.Inspect(body, func(n ast.Node) bool {
		if n != nil {
			code[s.line(n.Pos())], code[s.line(n.End())] = true, true
		}
		return true
	})
	lines := last - first
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			for n := s.line(c.Pos()); n <= s.line(c.End()); n++ {
				if n >= first && n < last && !code[n] {
					lines--
				}
			}
		}
	}
	return lines
}

// packages are larger than a package may be.
func packages(all []*source) (found []finding) {
	sizes := make(map[string]int)
	for _, s := range all {
		if s.product() {
			sizes[s.dir()] += s.lines
		}
	}
	for dir, n := range sizes {
		if n > maxPackage {
			found = append(found, finding{dir, n, fmt.Sprintf("%s has %d lines without tests, at most %d", dir, n, maxPackage)})
		}
	}
	return found
}

// fields are structs that have too many.
func fields(all []*source) (found []finding) {
	for _, s := range all {
		if !s.product() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := spec.Type.(*ast.StructType); ok && st.Fields.NumFields() > maxFields {
				subject := s.dir() + "." + spec.Name.Name
				found = append(found, finding{subject, st.Fields.NumFields(), fmt.Sprintf("%s:%d: %s has %d fields, at most %d",
					s.path, s.line(spec.Pos()), spec.Name.Name, st.Fields.NumFields(), maxFields)})
			}
			return true
		})
	}
	return found
}

// methods are types that have too many. A fake has the methods of what it replaces,
// and those of the test.
func methods(all []*source) (found []finding) {
	counts := make(map[string]int)
	for _, s := range all {
		if !s.product() || strings.HasSuffix(s.dir(), "test") || strings.HasSuffix(s.dir(), "/fake") {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				counts[s.dir()+"."+strings.TrimSuffix(receiver(f), ".")]++
			}
		}
	}
	for subject, n := range counts {
		if n > maxMethods {
			found = append(found, finding{subject, n, fmt.Sprintf("%s has %d methods, at most %d", subject, n, maxMethods)})
		}
	}
	return found
}

// receiver is the name of a method's type and a dot, "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	expr := f.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name + "."
		default:
			return "?."
		}
	}
}

// dialects are uses of a guest's dialect outside of the guest's packages.
func dialects(all []*source) (found []finding) {
	for _, s := range all {
		if !s.product() || strings.HasPrefix(s.path, "pkg/guest/") {
			continue
		}
		n := 0 // in this file
		ast.Inspect(s.file, func(node ast.Node) bool {
			sel, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if namesDialect(sel) || asksDialect(sel) {
				n++
				found = append(found, finding{s.path, n, fmt.Sprintf("%s:%d: %s outside of pkg/guest", s.path, s.line(sel.Pos()), sel.Sel.Name)})
			}
			return true
		})
	}
	return found
}

// namesDialect reports whether it is one of the dialects.
func namesDialect(sel *ast.SelectorExpr) bool {
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "hyperstart" && strings.HasPrefix(sel.Sel.Name, "Dialect") && sel.Sel.Name != "Dialect"
}

// asksDialect reports whether a guest's dialect is asked for anything but its
// name.
func asksDialect(sel *ast.SelectorExpr) bool {
	call, ok := sel.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && method.Sel.Name == "Dialect" && sel.Sel.Name != "String"
}

// docs are packages that do not say what they are.
func docs(all []*source) (found []finding) {
	want := make(map[string]string) // by directory: the file that has to say it
	said := make(map[string]bool)
	for _, s := range all {
		if s.product() && want[s.dir()] == "" {
			want[s.dir()] = "doc.go"
			if s.file.Name.Name == "main" {
				want[s.dir()] = "main.go"
			}
		}
		if s.file.Doc != nil {
			said[s.path] = true
		}
	}
	for dir, file := range want {
		if path := dir + "/" + file; !said[path] {
			found = append(found, finding{dir, 0, path + " does not say what the package is"})
		}
	}
	return found
}

// states are changes of a state outside of state.go, or states.go where a
// package has several.
func states(all []*source) (found []finding) {
	for _, s := range all {
		if !s.product() || s.name() == "state.go" || s.name() == "states.go" {
			continue
		}
		n := 0 // in this file
		ast.Inspect(s.file, func(node ast.Node) bool {
			assign, ok := node.(*ast.AssignStmt)
			if !ok || assign.Tok != token.ASSIGN {
				return true
			}
			for _, left := range assign.Lhs {
				if sel, ok := left.(*ast.SelectorExpr); ok && sel.Sel.Name == "state" {
					n++
					found = append(found, finding{s.path, n, fmt.Sprintf("%s:%d: a state is set outside of state.go", s.path, s.line(sel.Pos()))})
				}
			}
			return true
		})
	}
	return found
}
