package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// module is one kernel module in load order.
type module struct {
	name string // as the kernel names it, with underscores
	path string // below the module directory, e.g. "kernel/fs/fuse/fuse.ko"
	data []byte // unpacked
}

// moduleTree finds modules below one /lib/modules/<release> directory. It
// reads the dependencies from the modules themselves, because modules.dep is
// made by a package's post-install script and is missing in an unpacked package.
type moduleTree struct {
	dir     string
	paths   map[string]string   // name to path
	builtin map[string]struct{} // names
}

func openModules(dir string) (*moduleTree, error) {
	t := &moduleTree{dir: dir, paths: map[string]string{}, builtin: map[string]struct{}{}}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name, ok := moduleName(p); ok {
			t.paths[name] = p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, ok := moduleName(s.Text()); ok {
			t.builtin[name] = struct{}{}
		}
	}
	return t, nil
}

// moduleName returns the kernel's name for a module file.
func moduleName(p string) (string, bool) {
	base, suffix, ok := strings.Cut(filepath.Base(p), ".ko")
	switch suffix {
	case "", ".gz", ".xz", ".zst":
		return strings.ReplaceAll(base, "-", "_"), ok
	}
	return "", false
}

// resolver appends modules after everything that they depend on.
type resolver struct {
	tree    *moduleTree
	seen    map[string]bool
	ordered []module
}

// add appends the named module unless it is built in or already there. It
// reports false when the kernel has no such module.
func (r *resolver) add(name string) (bool, error) {
	name = strings.ReplaceAll(name, "-", "_")
	if r.seen[name] {
		return true, nil
	}
	p, ok := r.tree.paths[name]
	if !ok {
		_, builtin := r.tree.builtin[name]
		return builtin, nil
	}
	r.seen[name] = true
	data, err := readModule(p)
	if err != nil {
		return false, fmt.Errorf("module %s: %w", name, err)
	}
	depends, err := moduleDepends(data)
	if err != nil {
		return false, fmt.Errorf("module %s: %w", name, err)
	}
	for _, d := range depends {
		found, err := r.add(d.name)
		if err != nil {
			return false, err
		}
		if !found && !d.soft {
			return false, fmt.Errorf("module %s: needs %s, which this kernel does not have", name, d.name)
		}
	}
	rel, err := filepath.Rel(r.tree.dir, p)
	if err != nil {
		return false, err
	}
	// Modules are stored unpacked: unpacking costs boot time.
	rel = rel[:strings.LastIndex(rel, ".ko")+len(".ko")]
	r.ordered = append(r.ordered, module{name: name, path: filepath.ToSlash(rel), data: data})
	return true, nil
}

func readModule(p string) ([]byte, error) {
	data, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	switch filepath.Ext(p) {
	case ".gz":
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case ".zst":
		r, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	case ".xz":
		return nil, errors.New("xz compression is not supported, unpack the module directory with unxz first")
	}
	return data, nil
}

type dependency struct {
	name string
	soft bool // wanted before, but the module loads without it
}

// moduleDepends reads the dependencies from the module's .modinfo section.
func moduleDepends(data []byte) ([]dependency, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var deps []dependency
	for field := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				deps = append(deps, dependency{name: name})
			}
		case "softdep":
			deps = append(deps, softDepends(value)...)
		}
	}
	return deps, nil
}

// softDepends parses "pre: a b post: c"; only what comes before counts.
func softDepends(value string) []dependency {
	var deps []dependency
	pre := false
	for word := range strings.FieldsSeq(value) {
		switch {
		case word == "pre:":
			pre = true
		case strings.HasSuffix(word, ":"):
			pre = false
		case pre:
			deps = append(deps, dependency{name: word, soft: true})
		}
	}
	return deps
}
