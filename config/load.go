package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads the file at path and its drop-ins. Only DefaultPath may be
// missing. annotations are those of the container that starts the sandbox.
// The error names every problem with its key, file and line.
func Load(path string, annotations map[string]string) (Config, error) {
	l := newLoader()
	files := []string{path}
	dropIns, err := dropIns(path + ".d")
	if err != nil {
		l.unreadable(err)
	}
	for _, file := range append(files, dropIns...) {
		text, err := os.ReadFile(file)
		switch {
		case errors.Is(err, os.ErrNotExist) && file == DefaultPath:
		case errors.Is(err, os.ErrNotExist):
			l.unreadable(fmt.Errorf("%s does not exist; create it, or correct the path that names it", file))
		case err != nil:
			l.unreadable(err)
		default:
			l.read(file, string(text))
		}
	}
	return l.finish(annotations)
}

// Parse is Load for a configuration in memory, which has no drop-ins. name
// represents the file in errors.
func Parse(name, text string, annotations map[string]string) (Config, error) {
	l := newLoader()
	l.read(name, text)
	return l.finish(annotations)
}

// dropIns returns the files of a directory that may be missing, in the order
// of their names.
func dropIns(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".toml") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// loader collects values and remembers where each of them came from.
type loader struct {
	config Config
	fields map[string]any    // pointers into config, by key
	origin map[string]string // of keys that were set: "file:line" or an annotation
	errs   []error
	part   bool // a file was not read at all: keys may have been set there
}

func newLoader() *loader {
	l := &loader{config: Defaults(), origin: map[string]string{}}
	l.fields = fieldsOf(&l.config)
	return l
}

// finish applies the annotations and checks the whole. A value that could not
// be read is the default by then, so it is not complained about twice.
func (l *loader) finish(annotations map[string]string) (Config, error) {
	l.annotate(annotations)
	errs := l.errs
	for _, p := range l.config.problems() {
		if from, ok := l.origin[p.key]; ok {
			errs = append(errs, fmt.Errorf("%s: %w", from, p))
		} else if !l.part {
			errs = append(errs, p)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return l.config, fmt.Errorf("configuration: %w", err)
	}
	return l.config, nil
}

// unreadable notes why a file or a directory was not read.
func (l *loader) unreadable(err error) {
	l.errs, l.part = append(l.errs, err), true
}

// read reads the values of one file.
func (l *loader) read(file, text string) {
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		if parse, ok := errors.AsType[toml.ParseError](err); ok {
			err = fmt.Errorf("%s:%d: %s", file, parse.Position.Line, parse.Message)
		} else {
			err = fmt.Errorf("%s: %w", file, err)
		}
		l.unreadable(err)
		return
	}
	r := reader{loader: l, file: file, text: text}
	r.table(nil, tree)
	slices.SortStableFunc(r.found, func(a, b finding) int { return a.line - b.line })
	for _, f := range r.found {
		l.errs = append(l.errs, fmt.Errorf("%s:%d: %w", file, f.line, f.err))
	}
}

// reader walks through one file.
type reader struct {
	*loader
	file, text string
	found      []finding
}

// finding is a problem and its line.
type finding struct {
	line int
	err  error
}

func (r *reader) bad(key toml.Key, format string, args ...any) {
	r.found = append(r.found, finding{lineOf(r.text, key), fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...))})
}

// table reads the values below prefix.
func (r *reader) table(prefix toml.Key, tree map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		value := tree[name]
		key := append(slices.Clone(prefix), name)
		sub, isTable := value.(map[string]any)
		field, isField := r.fields[key.String()]
		switch {
		case isField:
			if err := setValue(field, value); err != nil {
				r.bad(key, "%v", err)
				continue
			}
			r.origin[key.String()] = fmt.Sprintf("%s:%d", r.file, lineOf(r.text, key))
		case !r.hasTable(key):
			r.bad(key, "there is no such key")
		case !isTable:
			r.bad(key, "is a table; write [%s]", key)
		default:
			r.table(key, sub)
		}
	}
}

func (r *reader) hasTable(key toml.Key) bool {
	for name := range r.fields {
		if strings.HasPrefix(name, key.String()+".") {
			return true
		}
	}
	return false
}
