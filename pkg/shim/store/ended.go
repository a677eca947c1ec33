package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxEnded is how many journals are kept of sandboxes that have ended.
const MaxEnded = 64

const endedDir = ".ended"

// Ended are the paths of the journals that are kept below a root, the oldest first.
func Ended(root string) ([]string, error) {
	dir := filepath.Join(root, endedDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var paths []string
	for _, e := range entries { // which are sorted by name
		if strings.HasSuffix(e.Name(), ".jsonl") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// Retire keeps the journal of a sandbox that has ended, and removes the oldest ones of others
// when there are more than [MaxEnded]. A sandbox without a journal has none to be kept.
func (d Dir) Retire(s State) error {
	from := filepath.Join(d.path, JournalFile)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	root := d.root(s)
	if err := os.MkdirAll(filepath.Join(root, endedDir), 0o700); err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	before, err := Ended(root)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%020d-%s.jsonl", endTime(before), s.ID[:min(len(s.ID), 64)])
	err = os.Rename(from, filepath.Join(root, endedDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // who tears down another container of the sandbox has kept it
	}
	if err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	all, err := Ended(root)
	if err != nil || len(all) <= MaxEnded {
		return err
	}
	for path := range slices.Values(all[:len(all)-MaxEnded]) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // another shim may be at it
			return fmt.Errorf("keep a journal: %w", err)
		}
	}
	return nil
}

// endTime is the time of the next journal in nanoseconds, by which they are sorted: never earlier than
// those before, whatever the clock was set to. Sandboxes of the same time differ in their id.
func endTime(before []string) int64 {
	now := time.Now().UnixNano()
	if len(before) == 0 {
		return now
	}
	last, _, _ := strings.Cut(filepath.Base(before[len(before)-1]), "-")
	if n, err := strconv.ParseInt(last, 10, 64); err == nil && n >= now {
		return n + 1
	}
	return now
}

// root is what DirOf has made the directory below.
func (d Dir) root(s State) string {
	parent := filepath.Dir(d.path)
	if above := filepath.Dir(parent); DirOf(above, s.Namespace, s.ID).path == d.path {
		return above
	}
	return parent
}
