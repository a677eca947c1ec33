package install

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// What stands around the block at the end of containerd's configuration.
const (
	blockBegin = "# BEGIN ccv2: written by `ccv2 install`, removed by `ccv2 uninstall`"
	blockEnd   = "# END ccv2"
)

// runtimeName is that of the runtime in containerd's configuration, and of the
// RuntimeClass.
const runtimeName = "ccv2"

// containerdConfig is what is read of containerd's configuration.
type containerdConfig struct {
	Version int            `toml:"version"`
	Imports []string       `toml:"imports"`
	Disable []string       `toml:"disabled_plugins"`
	Plugins map[string]any `toml:"plugins"`
}

// criPlugins are the names of the plugin that has the runtimes, by the version of the
// configuration's format.
var criPlugins = map[int]string{2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}

// criNames are all names of the plugin, that of version 1 of the format among them.
var criNames = []string{"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"}

// decodeContainerd reads a configuration.
func decodeContainerd(path string, text []byte) (*containerdConfig, error) {
	c := containerdConfig{Version: templateVersion(path)}
	if c.Version != 0 {
		text = actions.ReplaceAll(text, nil)
	}
	if _, err := toml.Decode(string(text), &c); err != nil {
		return nil, fmt.Errorf("read containerd's configuration %s: %w; nothing was changed", path, err)
	}
	if c.Version == 0 {
		c.Version = 1
	}
	return &c, nil
}

// check refuses a configuration without our block that no runtime can be added to.
func (c *containerdConfig) check(path string) error {
	if criPlugins[c.Version] == "" {
		return fmt.Errorf("containerd's configuration %s has format version %d, known are 2 to 4; "+
			"convert it with `containerd config migrate`; nothing was changed", path, c.Version)
	}
	if c.hasRuntime() {
		return fmt.Errorf("containerd's configuration %s has a runtime %q that ccv2 install did not write; "+
			"remove it first; nothing was changed", path, runtimeName)
	}
	return nil
}

// inline is a value between braces of one of the keys that lead to the runtimes. TOML
// does not allow a table to add to it, which our decoder does not find.
var inline = regexp.MustCompile(`(?m)^(?:[^#\n]*[\s.{])?(?:plugins|containerd|runtimes|["']?io\.containerd\.grpc\.v1\.cri["']?|["']?io\.containerd\.cri\.v1\.runtime["']?)\s*=\s*\{`)

// withoutPods reports whether containerd's CRI is disabled, as in what Docker's package
// of containerd brings: nobody reads of runtimes then.
func (c *containerdConfig) withoutPods() bool {
	return slices.ContainsFunc(c.Disable, func(name string) bool { return slices.Contains(criNames, name) })
}

// templateVersion is the version of the configuration that k3s and RKE2 make of a
// template, whose name says it; 0 for what is no template.
func templateVersion(path string) int {
	switch filepath.Base(path) {
	case "config-v3.toml.tmpl":
		return 3
	case "config.toml.tmpl":
		return 2
	}
	return 0
}

// actions are those of a template, which are no TOML.
var actions = regexp.MustCompile(`\{\{[^}]*\}\}`)

// newConfig is what there has to be before our block in a configuration that is not
// there yet: its version or, for a template, all that k3s has by itself. It is not in
// the block, because others may write tables before that.
func newConfig(path string) (text string, version int) {
	if version = templateVersion(path); version != 0 {
		return "{{ template \"base\" . }}\n", version
	}
	return "version = 2\n", 2 // which every containerd reads
}

// hasRuntime reports whether there is a runtime of our name.
func (c *containerdConfig) hasRuntime() bool {
	return slices.ContainsFunc(criNames, func(name string) bool {
		at := c.Plugins
		for _, key := range []string{name, "containerd", "runtimes"} {
			at, _ = at[key].(map[string]any) // of nil there is nothing
		}
		_, ok := at[runtimeName]
		return ok
	})
}

// hasCRI reports whether there are settings of the plugin that has the runtimes.
func (c *containerdConfig) hasCRI() bool {
	return slices.ContainsFunc(criNames, func(name string) bool { return c.Plugins[name] != nil })
}

// dropIn is the path of ours in a directory whose files the configuration imports, "" for
// none. Before version 3 of the format an imported file replaces all settings of a plugin, so that
// a drop-in would undo what the node's operator has set.
func (c *containerdConfig) dropIn() string {
	if c.Version < 3 {
		return ""
	}
	for _, pattern := range c.Imports {
		if filepath.IsAbs(pattern) && filepath.Base(pattern) == "*.toml" && !strings.ContainsAny(filepath.Dir(pattern), "*?[") {
			return filepath.Join(filepath.Dir(pattern), runtimeName+".toml")
		}
	}
	return ""
}

// runtimeBlock is the runtime, for a configuration of a version.
func runtimeBlock(version int, shim string) string {
	return fmt.Sprintf(`[plugins.'%s'.containerd.runtimes.%s]
  runtime_type = "io.containerd.cc.v2"
  runtime_path = "%s"
`, criPlugins[version], runtimeName, shim)
}

// findBlock finds our block: where its first line begins, where its last one ends, and
// what is between, which an editor may have given other ends of lines.
func findBlock(text []byte) (begin, end int, block []byte, ok bool) {
	if begin = bytes.Index(text, []byte(blockBegin)); begin < 0 {
		return 0, 0, nil, false
	}
	inside := begin + lineEnd(text[begin:])
	length := bytes.Index(text[inside:], []byte(blockEnd))
	if length < 0 {
		return 0, 0, nil, false // somebody has cut its end off
	}
	end = inside + length + lineEnd(text[inside+length:])
	return begin, end, bytes.ReplaceAll(text[inside:inside+length], []byte("\r\n"), []byte("\n")), true
}

// lineEnd is the length of the first line, with its end.
func lineEnd(text []byte) int {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	return len(text)
}

// withoutBlock cuts our block out of a file, and with it the end of the line before it,
// if we had to add one; ok is false when there is none. block is what is in it.
func withoutBlock(text []byte) (rest, block []byte, ok bool) {
	begin, end, block, ok := findBlock(text)
	if !ok {
		return text, nil, false
	}
	rest = bytes.Clone(text[:begin])
	if before, ended := bytes.CutSuffix(rest, []byte(noNewline)); ended {
		rest = before
		if end < len(text) {
			rest = append(rest, '\n')
		}
	}
	return append(rest, text[end:]...), block, true
}

// noNewline is added to a file whose last line has no end, so that it can be given back
// as it was. To TOML it is a comment.
const noNewline = " # ccv2 install has ended this line\n"

// withBlock puts a block in the place of the one that a file has, or at its end.
func withBlock(text []byte, block string) []byte {
	block = blockBegin + "\n" + block + blockEnd + "\n"
	if begin, end, _, ok := findBlock(text); ok {
		return slices.Concat(text[:begin], []byte(block), text[end:])
	}
	out := bytes.Clone(text)
	if n := len(out); n > 0 && out[n-1] != '\n' {
		out = append(out, noNewline...)
	}
	return append(out, block...)
}
