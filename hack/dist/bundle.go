package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is one of the bundle: of the host, or made here.
type file struct {
	source string // path on the host; "" for what is in data or link
	link   string // target of a symbolic link
	data   []byte
	mode   int64
}

// bundle is what is being made. Names are slash-separated and below its directory.
type bundle struct {
	build, version, qemu string
	time                 time.Time

	files   map[string]file
	sources map[string]bool // files of the host that come from packages
}

func (b *bundle) name() string { return "ccv2-" + b.version + "-linux-amd64" }

// firmware is what QEMU reads for the machines that a pod has: the BIOS of q35 and of
// microvm, and the option ROMs that start a kernel.
var firmware = []string{"bios-256k.bin", "bios-microvm.bin", "kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin", "pvh.bin"}

// modules of QEMU that are loaded when they are needed.
var modules = []string{"accel-tcg-x86_64.so"}

// collect finds all files.
func (b *bundle) collect() error {
	b.files, b.sources = make(map[string]file), make(map[string]bool)
	for _, name := range []string{"containerd-shim-ccv2", "ccv2"} {
		b.add("bin/"+name, filepath.Join(b.build, "bin", name), 0o755)
	}
	b.files["bin/containerd-shim-cc-v2"] = file{link: "containerd-shim-ccv2"}
	for _, name := range []string{"vmlinux", "initrd.img", "manifest.json"} {
		b.add("share/ccv2/"+name, filepath.Join(b.build, "guest", name), 0o644)
	}
	if err := b.addPrograms(); err != nil {
		return err
	}
	data := filepath.Join(filepath.Dir(filepath.Dir(b.qemu)), "share")
	for _, name := range firmware {
		found, err := firstOf(filepath.Join(data, "qemu", name), filepath.Join(data, "seabios", name))
		if err != nil {
			return fmt.Errorf("firmware: %w", err)
		}
		b.addOf("share/qemu/"+name, found, 0o644)
	}
	b.add("share/ccv2/config.toml", "config/config.toml", 0o644)
	b.add("LICENSE", "LICENSE", 0o644)
	if err := b.addManifests("deploy"); err != nil {
		return err
	}
	b.files["VERSION"] = file{data: []byte(b.version + "\n"), mode: 0o644}
	if err := b.document(); err != nil {
		return err
	}
	return b.sum()
}

// addManifests adds the manifests for a cluster, with this version of the image.
func (b *bundle) addManifests(dir string) error {
	tree := os.DirFS(dir)
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, name)
		b.files["deploy/"+name] = file{data: bytes.ReplaceAll(text, []byte("newTag: devel"), []byte("newTag: "+b.version)), mode: 0o644}
		return err
	})
}

// addPrograms adds QEMU and virtiofsd, each to be started by ccv2-exec with the loader
// and the libraries of this machine.
func (b *bundle) addPrograms() error {
	programs := map[string]string{
		"qemu-system-x86_64": b.qemu, "virtiofsd": filepath.Join(b.build, "virtiofsd", "virtiofsd"),
	}
	objects := slices.Collect(maps.Values(programs))
	for _, name := range modules {
		prefix := filepath.Dir(filepath.Dir(b.qemu))
		found, err := filepath.Glob(filepath.Join(prefix, "lib", "*", "qemu", name))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("module %s of QEMU: found %v, %w", name, found, err)
		}
		// QEMU looks for what it reads by paths that are relative to its executable's, which
		// is the loader's.
		b.addOf(strings.TrimPrefix(found[0], prefix+"/"), found[0], 0o755)
		objects = append(objects, found[0])
	}
	loader, libraries, err := closure(objects)
	if err != nil {
		return err
	}
	for name, source := range libraries {
		b.addOf("lib/"+name, source, 0o755)
	}
	b.add("libexec/ccv2-exec", filepath.Join(b.build, "bin", "ccv2-exec"), 0o755)
	for name, source := range programs {
		b.files["bin/"+name] = file{link: "../libexec/ccv2-exec"}
		b.add("libexec/"+name, source, 0o755)
		b.addOf("loader/"+name, loader, 0o755)
	}
	b.sources[b.qemu] = true
	return nil
}

// add adds a file of the host; addOf one that a package of the host has brought.
func (b *bundle) add(name, source string, mode int64) {
	b.files[name] = file{source: source, mode: mode}
}

func (b *bundle) addOf(name, source string, mode int64) {
	b.add(name, source, mode)
	b.sources[source] = true
}

// sum adds the checksums of all files, as sha256sum -c reads them.
func (b *bundle) sum() error {
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		f := b.files[name]
		if f.link != "" {
			continue
		}
		data, err := f.read()
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&lines, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	b.files["SHA256SUMS"] = file{data: []byte(lines.String()), mode: 0o644}
	return nil
}

func (f file) read() ([]byte, error) {
	if f.source == "" {
		return f.data, nil
	}
	return os.ReadFile(f.source)
}

// write writes the archive.
func (b *bundle) write(w io.Writer) error {
	t := tar.NewWriter(w)
	written := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		f, full := b.files[name], path.Join(b.name(), name)
		if err := b.writeParents(t, full, written); err != nil {
			return err
		}
		if f.link != "" {
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: full, Linkname: f.link, Mode: 0o777, ModTime: b.time}); err != nil {
				return err
			}
			continue
		}
		data, err := f.read()
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: full, Mode: f.mode, Size: int64(len(data)), ModTime: b.time}); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	return t.Close()
}

// writeParents writes the directories of a name that are not written yet.
func (b *bundle) writeParents(t *tar.Writer, name string, written map[string]bool) error {
	dir := path.Dir(name)
	if dir == "." || written[dir] {
		return nil
	}
	if err := b.writeParents(t, dir, written); err != nil {
		return err
	}
	written[dir] = true
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: b.time})
}

// firstOf is the first path that exists.
func firstOf(paths ...string) (string, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("none of %s is there", strings.Join(paths, ", "))
}
