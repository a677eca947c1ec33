package sandboxes

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Journal is what a sandbox has left of its events.
type Journal struct {
	Path    string
	Sandbox debugapi.JournalSandbox
	Events  []debugapi.JournalEvent
	// Counters are those at the end; nil when the shim has died, or lives.
	Counters *debugapi.Counters
}

// maxJournal is more than a journal has.
const maxJournal = 4 << 20

// ReadJournal reads one. Lines that are not understood are left out, as long as there are others; the last line of a
// shim that has died may be cut off.
func ReadJournal(path string) (Journal, error) {
	j := Journal{Path: path}
	f, err := os.Open(path)
	if err != nil {
		return j, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	var bad error
	good := false
	for r := bufio.NewReader(io.LimitReader(f, maxJournal)); ; {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && bad != nil && !good {
			return j, fmt.Errorf("read journal %s: %w", path, bad)
		}
		if errors.Is(err, io.EOF) {
			return j, nil
		}
		if err != nil {
			return j, fmt.Errorf("read journal: %w", err)
		}
		var line debugapi.Journal
		if err := json.Unmarshal(text, &line); err != nil {
			bad = err
			continue
		}
		good = true
		j.add(line)
	}
}

// add adds what a line has.
func (j *Journal) add(line debugapi.Journal) {
	switch {
	case line.Sandbox != nil:
		j.Sandbox = *line.Sandbox
	case line.Event != nil:
		j.Events = append(j.Events, *line.Event)
	case line.Counters != nil:
		j.Counters = line.Counters
	}
}

// JournalsOf are those of journals that are of earlier sandboxes of the same pods, or of the same ids. One that cannot be
// read is nobody's.
func JournalsOf(records []Record, journals []string) []string {
	return slices.DeleteFunc(slices.Clone(journals), func(path string) bool {
		j, err := ReadJournal(path)
		return err != nil || !slices.ContainsFunc(records, func(r Record) bool {
			a, s := r.Saved.About, j.Sandbox
			return r.Saved.ID == s.ID && r.Saved.Namespace == s.Namespace || a.Pod != "" && a.Pod == s.Pod && a.PodNamespace == s.PodNamespace
		})
	})
}

// FindJournal finds the journal of a sandbox whose shim is gone: of one that was not cleaned up
// yet, or the last of those that have ended, by the names that [Find] knows.
func FindJournal(stateDir, name string) (Journal, error) {
	r, err := Find(stateDir, name)
	if err == nil {
		return ReadJournal(filepath.Join(r.Dir.Path(), store.JournalFile))
	}
	if StatusOf(err) != StatusNotFound {
		return Journal{}, err
	}
	paths, endedErr := store.Ended(stateDir)
	for _, path := range slices.Backward(paths) {
		j, readErr := ReadJournal(path)
		if readErr != nil {
			continue // it was just removed, or another one has the name
		}
		s := j.Sandbox
		if s.ID != "" && (strings.HasPrefix(s.ID, name) || s.Namespace+"/"+s.ID == name || s.Pod != "" && (s.Pod == name || s.PodNamespace+"/"+s.Pod == name)) {
			return j, nil
		}
	}
	return Journal{}, errors.Join(err, endedErr)
}
