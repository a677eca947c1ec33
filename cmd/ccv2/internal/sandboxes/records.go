package sandboxes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Record is what is on disk of a sandbox.
type Record struct {
	Dir   store.Dir
	Saved store.State
	Err   error // the record cannot be read
}

// Name is what messages call the sandbox.
func (r Record) Name() string {
	if r.Err != nil {
		return r.Dir.Path()
	}
	if r.Saved.About.Pod != "" {
		return fmt.Sprintf("%s (pod %s/%s)", r.Saved.ID, r.Saved.About.PodNamespace, r.Saved.About.Pod)
	}
	return r.Saved.ID
}

// All are those of all sandboxes below a state directory, in the order of their paths.
// A sandbox has a directory in that of its namespace, or one that is named by a hash.
func All(stateDir string) ([]Record, error) {
	var all []Record
	for _, pattern := range []string{"*/state.json", "*/*/state.json"} {
		paths, err := filepath.Glob(filepath.Join(Escape(stateDir), pattern))
		if err != nil {
			return nil, fmt.Errorf("find sandboxes: %w", err)
		}
		for _, path := range paths {
			r := Record{Dir: store.Open(filepath.Dir(path))}
			r.Saved, r.Err = r.Dir.Load()
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				continue // it has ended meanwhile
			}
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Dir.Path(), b.Dir.Path()) })
	return all, nil
}

// Escape keeps a path from being a pattern.
func Escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// Find is the one sandbox that a name is of: its id or the begin of it, or the name of its
// pod, with the namespace or without.
func Find(stateDir, name string) (Record, error) {
	all, err := All(stateDir)
	if err != nil {
		return Record{}, err
	}
	if name == "" {
		return Record{}, &Error{Status: StatusUsage, Err: errors.New("the name of the sandbox is empty; ccv2 ps lists those that there are")}
	}
	var found, exact []Record
	for _, r := range all {
		if r.Err != nil {
			continue
		}
		if r.Saved.ID == name || r.Saved.Namespace+"/"+r.Saved.ID == name {
			exact = append(exact, r)
			continue
		}
		about := r.Saved.About
		if strings.HasPrefix(r.Saved.ID, name) || about.Pod == name || about.PodNamespace+"/"+about.Pod == name {
			found = append(found, r)
		}
	}
	if len(exact) > 0 {
		found = exact
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Record{}, &Error{Status: StatusNotFound, Err: fmt.Errorf("there is no sandbox %q on this host (in %s); ccv2 ps lists those that there are", name, stateDir)}
	}
	names := make([]string, 0, len(found))
	for _, r := range found {
		names = append(names, r.Name())
	}
	return Record{}, &Error{Status: StatusUsage, Err: fmt.Errorf("%q can be any of %s; give more of the id, or NAMESPACE/ID of containerd", name, strings.Join(names, ", "))}
}
