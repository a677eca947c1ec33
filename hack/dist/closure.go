package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// closure finds the loader of ELF objects, which is one, and the libraries that they
// need, directly or not: by the names that they are looked for by, the files.
func closure(objects []string) (loader string, libraries map[string]string, err error) {
	libraries = make(map[string]string)
	pending := objects
	for len(pending) > 0 {
		object := pending[0]
		pending = pending[1:]
		interpreter, needed, err := read(object)
		if err != nil {
			return "", nil, fmt.Errorf("libraries of %s: %w", object, err)
		}
		if interpreter != "" {
			if loader != "" && loader != interpreter {
				return "", nil, fmt.Errorf("%s needs the loader %s, others %s", object, interpreter, loader)
			}
			loader = interpreter
		}
		for _, name := range needed {
			if libraries[name] != "" {
				continue
			}
			path, err := library(name)
			if err != nil {
				return "", nil, fmt.Errorf("libraries of %s: %w", object, err)
			}
			libraries[name] = path
			pending = append(pending, path)
		}
	}
	if loader == "" {
		return "", nil, errors.New("none of the programs has a loader")
	}
	loader, err = filepath.EvalSymlinks(loader)
	return loader, libraries, err
}

// read reads what an object needs.
func read(object string) (interpreter string, needed []string, err error) {
	f, err := elf.Open(object)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	if needed, err = f.ImportedLibraries(); err != nil {
		return "", nil, err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err != nil {
				return "", nil, err
			}
			interpreter = string(bytes.TrimRight(path, "\x00"))
		}
	}
	return interpreter, needed, nil
}

// library finds a library where Debian has them.
func library(name string) (string, error) {
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return filepath.EvalSymlinks(path)
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}
