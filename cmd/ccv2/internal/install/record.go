package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// record is what an installation has made on the host.
type record struct {
	Version string `json:"version"`
	// Trees are the versions whose trees are there, or are being made.
	Trees []string `json:"trees"`
	// Bin, Config and Containerd are those of the Host.
	Bin        string `json:"bin"`
	Config     string `json:"config"`
	Containerd string `json:"containerd"`
	// Files are those that it wrote, by their path: the checksum, or more than one
	// after an interruption between two versions.
	Files map[string][]string `json:"files"`
	Links map[string]string   `json:"links"`
	// Blocks are the files of others that have a block of ours at their end. Created
	// is set for one that was not there.
	Blocks map[string]block `json:"blocks"`
	Dirs   []string         `json:"dirs"` // that were not there, the outermost first
	// Told is when the runtime was written into containerd's configuration, as a block or a
	// drop-in; zero when it was not, or an interruption came between.
	Told time.Time `json:"told,omitzero"`
}

type block struct {
	Created bool     `json:"created,omitempty"`
	Sums    []string `json:"sums"` // as in Files, of what is in the block
}

// load reads the record; nil when nothing is installed.
func (h Host) load() (*record, error) {
	b, err := h.read(h.recordPath())
	if b == nil || err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read %s, which says what is installed: %w; restore it, or move %s away; nothing was changed", h.recordPath(), err, h.Prefix)
	}
	return r, nil
}

// Recorded has the paths that what is installed below the prefix was installed with.
func (h Host) Recorded() (Host, error) {
	r, err := h.load()
	if r != nil && r.Bin != "" {
		h.Bin, h.Config, h.Containerd = r.Bin, r.Config, r.Containerd
	}
	return h, err
}

// save writes the record. A directory for it comes to be with the record in it: without
// that nobody would know afterwards whose it is.
func (h Host) save(r *record) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	missing := h.missing(h.Prefix)
	if len(missing) == 0 {
		return h.write(h.recordPath(), b)
	}
	if err := h.change(); err != nil {
		return err
	}
	top := h.at(missing[0])
	part := top + newSuffix
	path := filepath.Join(part, strings.TrimPrefix(h.at(h.recordPath()), top))
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644), syncDir(part)); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", h.recordPath(), err), os.RemoveAll(part)) // as on a full disk
	}
	return os.Rename(part, top)
}

// ours reports whether a file's content is one that an installation wrote.
func (r *record) ours(path string, data []byte) bool {
	return r != nil && slices.Contains(r.Files[path], sumOf(data))
}

// oursBlock does the same for a block.
func (r *record) oursBlock(path string, text []byte) bool {
	return r != nil && slices.Contains(r.Blocks[path].Sums, sumOf(text))
}

// joined is what two records have together: that of what is there, and that of what
// will be.
func joined(is, will *record) *record {
	if is == nil {
		return will
	}
	both := *will
	both.Files, both.Links, both.Blocks, both.Dirs = maps.Clone(is.Files), maps.Clone(is.Links), maps.Clone(is.Blocks), slices.Clone(is.Dirs)
	for path, sums := range will.Files {
		both.Files[path] = slices.Concat(both.Files[path], sums)
	}
	maps.Copy(both.Links, will.Links)
	for path, b := range will.Blocks {
		if old, ok := both.Blocks[path]; ok {
			b.Created = old.Created
			b.Sums = slices.Concat(old.Sums, b.Sums)
		}
		both.Blocks[path] = b
	}
	for _, dir := range will.Dirs {
		if !slices.Contains(both.Dirs, dir) {
			both.Dirs = append(both.Dirs, dir)
		}
	}
	return &both
}
