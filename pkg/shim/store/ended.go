package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MaxEnded is how many journals are kept of sandboxes that have ended.
const MaxEnded = 64

const (
	endedDir     = ".ended"
	endedJournal = ".jsonl"
	endedSpans   = ".spans"
	// BeforeSuffix is what the name of the file of spans before the last one has.
	BeforeSuffix = ".1"
)

// Spans are the paths of all files of spans below a root, the older ones of a sandbox first: of sandboxes that live, and of
// those whose journal is kept.
func Spans(root string) ([]string, error) {
	if _, err := os.ReadDir(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find spans: %w", err)
	}
	var all []string
	tree := os.DirFS(root)
	for _, pattern := range []string{endedDir + "/*" + endedSpans, "*/" + SpansFile, "*/*/" + SpansFile} {
		for _, suffix := range []string{BeforeSuffix, ""} {
			paths, err := fs.Glob(tree, pattern+suffix)
			if err != nil {
				return nil, fmt.Errorf("find spans: %w", err)
			}
			for _, path := range paths {
				all = append(all, filepath.Join(root, path))
			}
		}
	}
	return all, nil
}

// Ended are the paths of the journals that are kept below a root, the oldest first.
func Ended(root string) ([]string, error) {
	dir := filepath.Join(root, endedDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var paths []string
	for _, e := range entries { // which are sorted by name
		if strings.HasSuffix(e.Name(), endedJournal) {
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
	name := filepath.Join(root, endedDir, fmt.Sprintf("%020d-%s", endTime(before), s.ID[:min(len(s.ID), 64)]))
	err = os.Rename(from, name+endedJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // who tears down another container of the sandbox has kept it
	}
	if err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	for _, suffix := range []string{BeforeSuffix, ""} {
		if err := os.Rename(filepath.Join(d.path, SpansFile+suffix), name+endedSpans+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep spans: %w", err)
		}
	}
	all, err := Ended(root)
	if err != nil || len(all) <= MaxEnded {
		return err
	}
	for _, path := range all[:len(all)-MaxEnded] {
		base := strings.TrimSuffix(path, endedJournal)
		for _, old := range []string{base + endedSpans + BeforeSuffix, base + endedSpans, path} {
			if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) { // another shim may be at it
				return fmt.Errorf("keep a journal: %w", err)
			}
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
