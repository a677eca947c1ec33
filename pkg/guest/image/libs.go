package image

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs are searched in every root, beside what its ld.so.conf names.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
}

// library is a file that a program needs at run time.
type library struct {
	name string // file name under which the dynamic loader looks for it
	path string // where it was found
}

// finder resolves shared libraries the way the dynamic loader does, within
// unpacked package roots before the host.
type finder struct {
	dirs []string
}

func newFinder(roots []string) *finder {
	f := &finder{}
	for _, root := range append(slices.Clone(roots), "/") {
		dirs := append(slices.Clone(libraryDirs), confDirs(root)...)
		for _, d := range dirs {
			f.dirs = append(f.dirs, filepath.Join(root, d))
		}
	}
	return f
}

// confDirs reads /etc/ld.so.conf.d. A file that cannot be read names nothing.
func confDirs(root string) []string {
	names, _ := filepath.Glob(filepath.Join(root, "etc/ld.so.conf.d/*.conf"))
	var dirs []string
	for _, name := range append(names, filepath.Join(root, "etc/ld.so.conf")) {
		file, err := os.Open(name)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(file); s.Scan(); {
			if line := strings.TrimSpace(s.Text()); strings.HasPrefix(line, "/") {
				dirs = append(dirs, line)
			}
		}
		file.Close()
	}
	return dirs
}

// closure returns the dynamic loader and all libraries that the program at
// path needs, directly or not; none for a static program.
func (f *finder) closure(path string) ([]library, error) {
	found := map[string]library{}
	interp, err := interpreter(path)
	if err != nil {
		return nil, err
	}
	queue := []string{path}
	if interp != "" {
		p, err := f.find(filepath.Base(interp), elf.ELFCLASSNONE)
		if err != nil {
			return nil, fmt.Errorf("%s: dynamic loader: %w", path, err)
		}
		found[filepath.Base(interp)] = library{filepath.Base(interp), p}
	}
	for len(queue) > 0 {
		needed, class, err := imported(queue[0])
		if err != nil {
			return nil, err
		}
		for _, name := range needed {
			if _, ok := found[name]; ok {
				continue
			}
			p, err := f.find(name, class)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", queue[0], err)
			}
			found[name] = library{name, p}
			queue = append(queue, p)
		}
		queue = queue[1:]
	}
	libs := make([]library, 0, len(found))
	for _, lib := range found {
		libs = append(libs, lib)
	}
	slices.SortFunc(libs, func(a, b library) int { return strings.Compare(a.name, b.name) })
	return libs, nil
}

// find returns the first file of that name with the right word size.
func (f *finder) find(name string, class elf.Class) (string, error) {
	for _, dir := range f.dirs {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_, got, err := imported(p)
		if err == nil && (class == elf.ELFCLASSNONE || got == class) {
			return p, nil
		}
	}
	return "", fmt.Errorf("shared library %s: %w; name the directory of its unpacked package with --root", name, fs.ErrNotExist)
}

func imported(path string) ([]string, elf.Class, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return needed, f.Class, nil
}

// interpreter returns the path of the dynamic loader, "" for a static program.
func interpreter(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return strings.TrimRight(string(b), "\x00"), nil
	}
	return "", nil
}
