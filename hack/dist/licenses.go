package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/BurntSushi/toml"
)

// goModules are those that our programs are built of.
func (b *bundle) goModules() ([]component, error) {
	cache, err := exec.CommandContext(context.Background(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("cache of modules: %w", err)
	}
	var components []component
	for _, name := range []string{"containerd-shim-ccv2", "ccv2", "ccv2-exec", "ccv2-agent"} {
		info, err := buildinfo.ReadFile(filepath.Join(b.build, "bin", name))
		if err != nil {
			return nil, fmt.Errorf("modules of %s: %w", name, err)
		}
		components = append(components, component{Name: "go", Version: info.GoVersion, Origin: "toolchain and standard library"})
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			components = append(components, component{Name: d.Path, Version: d.Version, Origin: "Go module"})
			dir := filepath.Join(string(bytes.TrimSpace(cache)), escaped(d.Path)+"@"+escaped(d.Version))
			if err := b.addLicenses(d.Path, dir); err != nil {
				return nil, fmt.Errorf("licence of %s: %w", d.Path, err)
			}
		}
	}
	return components, nil
}

// escaped is how a cache of modules writes a path: an upper-case letter is one with an
// exclamation mark before it.
func escaped(path string) string {
	var out strings.Builder
	for _, r := range path {
		if unicode.IsUpper(r) {
			out.WriteByte('!')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

// crates are those that virtiofsd is built of, as it was released with.
func (b *bundle) crates() ([]component, error) {
	home := os.Getenv("CARGO_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		home = filepath.Join(user, ".cargo")
	}
	version, err := exec.CommandContext(context.Background(), filepath.Join(b.build, "virtiofsd", "virtiofsd"), "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("version of virtiofsd: %w", err)
	}
	released, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(version)), "virtiofsd "), "+")
	locks, err := filepath.Glob(filepath.Join(home, "registry/src/*", "virtiofsd-"+released, "Cargo.lock"))
	if err != nil || len(locks) == 0 {
		return nil, fmt.Errorf("crates of virtiofsd %s: cargo has not kept its source: %w", released, err)
	}
	var lock struct {
		Package []struct{ Name, Version string }
	}
	if _, err := toml.DecodeFile(locks[0], &lock); err != nil {
		return nil, fmt.Errorf("crates of virtiofsd: %w", err)
	}
	var components []component
	for _, p := range lock.Package {
		dir := filepath.Join(filepath.Dir(filepath.Dir(locks[0])), p.Name+"-"+p.Version)
		err := b.addLicenses("crates/"+p.Name, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // for other systems
		}
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", p.Name, err)
		}
		components = append(components, component{Name: p.Name, Version: p.Version, Origin: "crate, in libexec/virtiofsd"})
	}
	return components, nil
}

// crun is the guest's OCI runtime with the libraries that are linked into it.
func (b *bundle) crun() ([]component, error) {
	dir := filepath.Join(b.build, "crun-static")
	parts, err := os.ReadFile(filepath.Join(dir, "parts"))
	if err != nil {
		return nil, fmt.Errorf("parts of crun: %w", err)
	}
	var components []component
	for line := range strings.Lines(string(parts)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		components = append(components, component{Name: name, Version: version, Origin: "in share/ccv2/initrd.img, linked statically"})
	}
	return components, b.addLicenses("crun", filepath.Join(dir, "licenses"))
}

// addLicenses adds the files of a directory whose names say that they are licences; of
// Debian's own directory all.
func (b *bundle) addLicenses(name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		is := name == "common" || name == "crun"
		for _, word := range []string{"LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"} {
			is = is || strings.HasPrefix(upper, word)
		}
		if is && !e.IsDir() {
			b.add("licenses/"+name+"/"+e.Name(), filepath.Join(dir, e.Name()), 0o644)
		}
	}
	return nil
}
