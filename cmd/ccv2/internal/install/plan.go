package install

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// plan is what a host is to have.
type plan struct {
	host    Host
	bundle  *bundle
	is      *record // what is installed; nil for nothing
	files   map[string][]byte
	links   map[string]string
	blocks  map[string]string // by the path of the file that gets one
	heads   map[string]string // what is before the block in a file that is not there
	created map[string]bool   // of these files the ones that were made for it
	dropIn  string            // of these files the one that containerd imports
	stays   []string          // paths of files that were changed by hand
	notes   []string          // for the operator
}

// newPlan finds out what is to be done, and changes nothing.
func newPlan(h Host, b *bundle) (*plan, error) {
	is, err := h.load()
	if err != nil {
		return nil, err
	}
	p := &plan{
		host: h, bundle: b, is: is, files: make(map[string][]byte), blocks: make(map[string]string), heads: make(map[string]string), created: make(map[string]bool),
		links: map[string]string{
			h.currentPath(): b.version,
			filepath.Join(h.Bin, "containerd-shim-cc-v2"): filepath.Join(h.currentPath(), "bin/containerd-shim-ccv2"),
			filepath.Join(h.Bin, "ccv2"):                  filepath.Join(h.currentPath(), "bin/ccv2"),
		},
	}
	for _, step := range []func() error{p.planTree, p.planLinks, p.planConfig, p.planContainerd, p.planWritable} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// planTree refuses what is at the place of the tree and is somebody else's.
func (p *plan) planTree() error {
	path := filepath.Join(p.host.Prefix, p.bundle.version)
	if p.is != nil && slices.Contains(p.is.Trees, p.bundle.version) {
		return nil
	}
	if _, err := os.Lstat(p.host.at(path)); err == nil {
		return fmt.Errorf("%s is there and not ccv2's; move it away first; nothing was changed", path)
	}
	return nil
}

// planLinks refuses what is at the place of a link and is somebody else's.
func (p *plan) planLinks() error {
	for path, want := range p.links {
		if path == p.host.currentPath() {
			if p.is != nil {
				continue // with whatever version was installed last
			}
			want = ""
		}
		target, err := p.host.target(path)
		if err != nil {
			return fmt.Errorf("%s is there and no link of ccv2's; move it away first; nothing was changed", path)
		}
		if target != "" && target != want && (p.is == nil || p.is.Links[path] != target) {
			return fmt.Errorf("%s is there and points to %s, which is not ccv2's; move it away first; nothing was changed", path, target)
		}
	}
	return nil
}

// newConfigSuffix is that of our configuration beside the one of an operator.
const newConfigSuffix = ".new"

// planConfig has our configuration written where there is none, or the one that an
// installation wrote. Another one is the operator's, and gets the new one beside it.
func (p *plan) planConfig() error {
	template, err := p.bundle.config()
	if err != nil {
		return err
	}
	current := p.host.currentPath()
	text := strings.NewReplacer(
		"/usr/share/ccv2/", filepath.Join(current, "share/ccv2")+"/",
		`"/usr/bin/qemu-system-x86_64"`, `"`+filepath.Join(current, "bin/qemu-system-x86_64")+`"`,
		`"/usr/lib/qemu/virtiofsd"`, `"`+filepath.Join(current, "bin/virtiofsd")+`"`,
	).Replace(string(template))
	there, err := p.host.read(p.host.Config)
	if err != nil {
		return err
	}
	if there == nil || p.is.ours(p.host.Config, there) || string(there) == text {
		p.files[p.host.Config] = []byte(text)
		return nil
	}
	p.stays = append(p.stays, p.host.Config)
	p.notes = append(p.notes, fmt.Sprintf("%s was changed by hand and stays; what this version brings is in %s.new", p.host.Config, p.host.Config))
	return p.planFile(p.host.Config+newConfigSuffix, []byte(text))
}

// planFile has a file written, unless there is one that is not as we wrote it.
func (p *plan) planFile(path string, data []byte) error {
	there, err := p.host.read(path)
	switch {
	case err != nil:
		return err
	case there == nil || p.is.ours(path, there) || bytes.Equal(there, data):
		p.files[path] = data
	case p.is == nil || p.is.Files[path] == nil:
		return fmt.Errorf("%s is there and not ccv2's; move it away first; nothing was changed", path)
	default:
		p.stays = append(p.stays, path)
		p.notes = append(p.notes, path+" was changed by hand and stays")
	}
	return nil
}

// planContainerd has containerd told of the runtime.
func (p *plan) planContainerd() error {
	path := p.host.Containerd
	there, err := p.host.read(path)
	if err != nil {
		return err
	}
	bare, old, had := withoutBlock(there)
	shim := filepath.Join(p.host.currentPath(), "bin/containerd-shim-ccv2")
	if there == nil {
		head, version := newConfig(path)
		p.heads[path], p.created[path] = head, true
		p.blocks[path] = runtimeBlock(version, shim)
		return nil
	}
	if had && !p.is.oursBlock(path, old) {
		p.stays = append(p.stays, path)
		p.notes = append(p.notes, fmt.Sprintf("the block of ccv2 in %s was changed by hand and stays", path))
		return nil
	}
	config, err := decodeContainerd(path, bare)
	if err != nil {
		return err
	}
	disabled, err := p.imports(path, config)
	if err != nil {
		return err
	}
	if disabled {
		p.notes = append(p.notes, path+" disables containerd's CRI and stays: there are no pods, and other clients find the shim by its link")
		return nil
	}
	if err := config.check(path); err != nil {
		return err
	}
	block := runtimeBlock(config.Version, shim)
	if p.dropIn = config.dropIn(); p.dropIn != "" {
		return p.planFile(p.dropIn, fmt.Appendf(nil, "version = %d\n\n%s", config.Version, block))
	}
	p.blocks[path], p.created[path] = block, had && p.is.Blocks[path].Created
	if edited, err := decodeContainerd(path, withBlock(there, block)); err != nil || !edited.hasRuntime() || inline.Match(there) {
		return fmt.Errorf("nothing can be added to containerd's configuration %s: it has the runtimes, or what they are in, between braces; "+
			"write them as tables; nothing was changed", path)
	}
	return nil
}

// runtimes are the paths of files that containerd is told of the runtime by.
func (p *plan) runtimes() []string {
	paths := slices.Collect(maps.Keys(p.blocks))
	for path := range p.files {
		if path == p.dropIn {
			paths = append(paths, path)
		}
	}
	return paths
}

// told is when these files were written, if they are to stay as they are.
func (p *plan) told() time.Time {
	if p.is == nil {
		return time.Time{}
	}
	for _, path := range p.runtimes() {
		if same, err := p.same(path); err != nil || !same {
			return time.Time{}
		}
	}
	return p.is.Told
}

// record is what there will be.
func (p *plan) record() *record {
	r := &record{
		Version: p.bundle.version, Trees: []string{p.bundle.version}, Bin: p.host.Bin, Config: p.host.Config, Containerd: p.host.Containerd,
		Files: make(map[string][]string), Links: p.links, Blocks: make(map[string]block), Told: p.told(),
	}
	for path, data := range p.files {
		r.Files[path] = []string{sumOf(data)}
	}
	for path, text := range p.blocks {
		r.Blocks[path] = block{Created: p.created[path], Sums: []string{sumOf([]byte(text))}}
	}
	for _, path := range slices.Sorted(maps.Keys(p.paths())) {
		for _, dir := range p.host.missing(filepath.Dir(path)) {
			if !slices.Contains(r.Dirs, dir) {
				r.Dirs = append(r.Dirs, dir)
			}
		}
	}
	if p.is != nil {
		r.Trees = append(r.Trees, slices.DeleteFunc(slices.Clone(p.is.Trees), func(v string) bool { return v == p.bundle.version })...)
		for _, dir := range p.is.Dirs {
			if !slices.Contains(r.Dirs, dir) {
				r.Dirs = append(r.Dirs, dir)
			}
		}
	}
	for _, path := range p.stays {
		if p.is == nil {
			continue // it was never ours
		}
		if sums, ok := p.is.Files[path]; ok {
			r.Files[path] = sums
		}
		if b, ok := p.is.Blocks[path]; ok {
			r.Blocks[path] = b
		}
	}
	slices.Sort(r.Dirs) // the outermost first
	return r
}

func (p *plan) paths() map[string]bool {
	all := map[string]bool{p.host.recordPath(): true}
	for path := range p.files {
		all[path] = true
	}
	for path := range p.links {
		all[path] = true
	}
	for path := range p.blocks {
		all[path] = true
	}
	return all
}

// edited is a file with its block as planned.
func (p *plan) edited(path string) (is, will []byte, err error) {
	is, err = p.host.read(path)
	if err != nil {
		return nil, nil, err
	}
	before := is
	if is == nil {
		before = []byte(p.heads[path])
	}
	return is, withBlock(before, p.blocks[path]), nil
}

// print says what would be done, as a diff.
func (p *plan) print(w io.Writer) error {
	if p.bundle.verify(p.host.at(filepath.Join(p.host.Prefix, p.bundle.version))) != nil {
		fmt.Fprintf(w, "+++ %s (the bundle's tree)\n", filepath.Join(p.host.Prefix, p.bundle.version))
	}
	for _, path := range slices.Sorted(maps.Keys(p.links)) {
		if target, err := p.host.target(path); err == nil && target != p.links[path] {
			fmt.Fprintf(w, "+++ %s -> %s\n", path, p.links[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		there, err := p.host.read(path)
		if err != nil {
			return err
		}
		printChange(w, path, there, p.files[path])
	}
	for _, path := range slices.Sorted(maps.Keys(p.blocks)) {
		is, will, err := p.edited(path)
		if err != nil {
			return err
		}
		printChange(w, path, is, will)
	}
	for _, note := range p.notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

// printChange prints the lines that differ between a common begin and a common end.
func printChange(w io.Writer, path string, is, will []byte) {
	if bytes.Equal(is, will) && is != nil {
		return
	}
	from, to := strings.SplitAfter(string(is), "\n"), strings.SplitAfter(string(will), "\n")
	begin := 0
	for begin < min(len(from), len(to)) && from[begin] == to[begin] {
		begin++
	}
	end := 0
	for end < min(len(from), len(to))-begin && from[len(from)-1-end] == to[len(to)-1-end] {
		end++
	}
	fmt.Fprintf(w, "--- %s\n+++ %s\n@@ line %d @@\n", path, path, begin+1)
	for _, line := range from[begin : len(from)-end] {
		fmt.Fprintf(w, "-%s\n", strings.TrimSuffix(line, "\n"))
	}
	for _, line := range to[begin : len(to)-end] {
		fmt.Fprintf(w, "+%s\n", strings.TrimSuffix(line, "\n"))
	}
}
