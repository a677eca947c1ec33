package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is a file of Go.
type source struct {
	path  string // from the root of the tree
	lines int
	fset  *token.FileSet
	file  *ast.File
}

func (s *source) dir() string  { return path.Dir(s.path) }
func (s *source) name() string { return path.Base(s.path) }

// product reports whether the file is part of what is shipped.
func (s *source) product() bool {
	top, _, _ := strings.Cut(s.path, "/")
	return slices.Contains([]string{"pkg", "cmd", "config"}, top) && !strings.HasSuffix(s.path, "_test.go")
}

func (s *source) line(p token.Pos) int { return s.fset.Position(p).Line }

// parse makes a source of a text.
func parse(name string, text []byte) (*source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &source{path: name, lines: bytes.Count(text, []byte("\n")), fset: fset, file: file}, nil
}

// tree reads all sources, also those of the modules in it.
func tree(t *testing.T) []*source {
	t.Helper()
	const root = "../.."
	var all []*source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "build" || d.Name() == "testdata" || d.Name() != "." && d.Name() != ".." && d.Name()[0] == '.' {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		s, err := parse(rel, text)
		if err == nil && !ast.IsGenerated(s.file) { // nobody reads those
			all = append(all, s)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
