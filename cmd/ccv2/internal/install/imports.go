package install

import (
	"fmt"
	"path/filepath"
	"strings"
)

// imports reads what containerd's configuration imports, and refuses it where containerd
// would not read of our runtime, or of somebody else's of that name. disabled reports
// whether one of the files has no pods.
func (p *plan) imports(path string, config *containerdConfig) (disabled bool, err error) {
	files, err := p.imported(path, config)
	if err != nil {
		return false, err
	}
	disabled, last := config.withoutPods(), ""
	for _, f := range files {
		disabled = disabled || f.config.withoutPods()
		if f.config.hasCRI() {
			last = f.path
		}
	}
	if disabled {
		return true, nil
	}
	for _, f := range files {
		if f.config.hasRuntime() {
			return false, fmt.Errorf("containerd's configuration %s imports %s, which has a runtime %q that ccv2 install did not write; "+
				"remove it first; nothing was changed", path, f.path, runtimeName)
		}
	}
	if last != "" && config.Version < 3 {
		return false, fmt.Errorf("containerd's configuration %s has format version %d, in which the settings that it imports from %s replace those of all runtimes; "+
			"name that file with -containerd-config; nothing was changed", path, config.Version, last)
	}
	return false, nil
}

// importedFile is a configuration that another one imports.
type importedFile struct {
	path   string
	config *containerdConfig
}

// imported are the files that a configuration imports, in the order in which containerd
// reads them, without what is ours.
func (p *plan) imported(path string, config *containerdConfig) ([]importedFile, error) {
	var files []importedFile
	seen := map[string]bool{path: true, config.dropIn(): true}
	pending := p.matches(path, config.Imports)
	for len(pending) > 0 {
		next := pending[0]
		pending = pending[1:]
		if seen[next] {
			continue
		}
		seen[next] = true
		text, err := p.host.read(next)
		if err != nil {
			return nil, fmt.Errorf("containerd's configuration %s imports %s: %w; nothing was changed", path, next, err)
		}
		if text == nil || p.is.ours(next, text) {
			continue
		}
		if bare, block, had := withoutBlock(text); had && p.is.oursBlock(next, block) {
			text = bare
		}
		c, err := decodeContainerd(next, text)
		if err != nil {
			return nil, err
		}
		files = append(files, importedFile{path: next, config: c})
		pending = append(pending, p.matches(next, c.Imports)...)
	}
	return files, nil
}

// matches are the files that the patterns in a configuration are of.
func (p *plan) matches(path string, patterns []string) []string {
	var all []string
	for _, pattern := range patterns {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		if !strings.Contains(pattern, "*") {
			all = append(all, filepath.Clean(pattern))
			continue
		}
		found, _ := filepath.Glob(p.host.at(pattern)) // containerd does not start with a bad pattern
		for _, f := range found {
			all = append(all, onHost(p.host.Root, f))
		}
	}
	return all
}
