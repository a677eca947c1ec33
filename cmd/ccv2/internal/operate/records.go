package operate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// record is what is on disk of a sandbox.
type record struct {
	dir   store.Dir
	saved store.State
	err   error // the record cannot be read
}

// name is what messages call the sandbox.
func (r record) name() string {
	if r.err != nil {
		return r.dir.Path()
	}
	if r.saved.About.Pod != "" {
		return fmt.Sprintf("%s (pod %s/%s)", r.saved.ID, r.saved.About.PodNamespace, r.saved.About.Pod)
	}
	return r.saved.ID
}

// records are those of all sandboxes below a state directory, in the order of their paths.
// A sandbox has a directory in that of its namespace, or one that is named by a hash.
func records(stateDir string) ([]record, error) {
	var all []record
	for _, pattern := range []string{"*/state.json", "*/*/state.json"} {
		paths, err := filepath.Glob(filepath.Join(escape(stateDir), pattern))
		if err != nil {
			return nil, fmt.Errorf("find sandboxes: %w", err)
		}
		for _, path := range paths {
			r := record{dir: store.Open(filepath.Dir(path))}
			r.saved, r.err = r.dir.Load()
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				continue // it has ended meanwhile
			}
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.dir.Path(), b.dir.Path()) })
	return all, nil
}

// escape keeps a path from being a pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// find is the one sandbox that a name is of: its id or the begin of it, or the name of its
// pod, with the namespace or without.
func find(stateDir, name string) (record, error) {
	all, err := records(stateDir)
	if err != nil {
		return record{}, err
	}
	if name == "" {
		return record{}, &Error{Status: StatusUsage, Err: errors.New("the name of the sandbox is empty; ccv2 ps lists those that there are")}
	}
	var found, exact []record
	for _, r := range all {
		if r.err != nil {
			continue
		}
		if r.saved.ID == name || r.saved.Namespace+"/"+r.saved.ID == name {
			exact = append(exact, r)
			continue
		}
		about := r.saved.About
		if strings.HasPrefix(r.saved.ID, name) || about.Pod == name || about.PodNamespace+"/"+about.Pod == name {
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
		return record{}, &Error{Status: StatusNotFound, Err: fmt.Errorf("there is no sandbox %q on this host (in %s); ccv2 ps lists those that there are", name, stateDir)}
	}
	names := make([]string, 0, len(found))
	for _, r := range found {
		names = append(names, r.name())
	}
	return record{}, &Error{Status: StatusUsage, Err: fmt.Errorf("%q can be any of %s; give more of the id, or NAMESPACE/ID of containerd", name, strings.Join(names, ", "))}
}
