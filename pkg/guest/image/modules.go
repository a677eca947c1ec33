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

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/kmod"
)

// module is one kernel module in load order.
type module struct {
	name string // as the kernel names it, with underscores
	path string // below the module directory, e.g. "kernel/fs/fuse/fuse.ko"
	data []byte // unpacked
	info moduleInfo
}

// entry is the module's part of the guest's table.
func (m module) entry() kmod.Module {
	e := kmod.Module{Name: m.name, Path: "/lib/modules/" + m.path, Aliases: m.info.aliases}
	for _, d := range m.info.depends {
		e.Needs = append(e.Needs, foldName(d.name))
	}
	return e
}

// foldName returns a module's name as the kernel writes it.
func foldName(name string) string { return strings.ReplaceAll(name, "-", "_") }

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
		return foldName(base), ok
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
	name = foldName(name)
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
	info, err := readInfo(data)
	if err != nil {
		return false, fmt.Errorf("module %s: %w", name, err)
	}
	for _, d := range info.depends {
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
	r.ordered = append(r.ordered, module{name: name, path: filepath.ToSlash(rel), data: data, info: info})
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
		return unxz(data)
	}
	return data, nil
}

type dependency struct {
	name string
	soft bool // wanted before, but the module loads without it
}

// moduleInfo is what a module says of itself.
type moduleInfo struct {
	depends []dependency
	aliases []string
}

// readInfo reads the module's .modinfo section.
func readInfo(data []byte) (moduleInfo, error) {
	var info moduleInfo
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return info, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return info, errors.New("no .modinfo section")
	}
	text, err := section.Data()
	if err != nil {
		return info, err
	}
	for field := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				info.depends = append(info.depends, dependency{name: name})
			}
		case "softdep":
			info.depends = append(info.depends, softDepends(value)...)
		case "alias":
			info.aliases = append(info.aliases, value)
		}
	}
	return info, nil
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
