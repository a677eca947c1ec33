package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Install puts the bundle that is unpacked in dir on the host, in the place of another
// version. With dry it only says what it would change, as a diff on out. What it tells
// the operator goes to out as well.
func Install(h Host, dir string, dry bool, out io.Writer) error {
	b, err := openBundle(dir)
	if err != nil {
		return err
	}
	if !dry {
		unlock, err := lock(h)
		if err != nil {
			return err
		}
		defer unlock()
	}
	p, err := newPlan(h, b)
	if err != nil {
		return err
	}
	if dry {
		return p.print(out)
	}
	will := p.record()
	if err := p.apply(will); err != nil {
		return fmt.Errorf("%w; run it again: what is done stays, what is left is done then", err)
	}
	for _, note := range p.notes {
		fmt.Fprintln(out, note)
	}
	fmt.Fprintf(out, "installed ccv2 %s in %s\n", b.version, filepath.Join(h.Prefix, b.version))
	return h.prune(will, out)
}

// Prune removes the trees of earlier versions whose last pod has ended.
func Prune(h Host, out io.Writer) error {
	r, err := h.load()
	if err != nil || r == nil || len(r.Trees) < 2 {
		return err
	}
	unlock, err := lock(h)
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = h.load(); err != nil || r == nil {
		return err
	}
	return h.prune(r, out)
}

// Verify reads an unpacked bundle, and finds what is missing or damaged.
func Verify(dir string) error {
	_, err := openBundle(dir)
	return err
}

// Installed is the version that is installed, "" for none.
func Installed(h Host) (string, error) {
	r, err := h.load()
	if r == nil {
		return "", err
	}
	return r.Version, nil
}

// apply makes the host what the plan says.
func (p *plan) apply(will *record) error {
	// From here on an interruption leaves what the record tells.
	if err := p.host.save(joined(p.is, will)); err != nil {
		return err
	}
	if err := p.host.change(); err != nil {
		return err
	}
	if err := p.bundle.copyTo(p.host.at(filepath.Join(p.host.Prefix, p.bundle.version))); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(p.paths())) {
		if err := p.host.mkdirs(filepath.Dir(path)); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		// One that is as it is to be keeps its time: containerd has read it.
		same, err := p.same(path)
		if err == nil && !same {
			err = p.host.write(path, p.files[path])
		}
		if err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(p.links)) {
		same, err := p.same(path)
		if err == nil && !same {
			err = p.host.link(path, p.links[path])
		}
		if err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(p.blocks)) {
		is, edited, err := p.edited(path)
		if err == nil && string(is) != string(edited) {
			err = p.host.write(path, edited)
		}
		if err != nil {
			return err
		}
	}
	if err := p.removeOld(will); err != nil {
		return err
	}
	if will.Told.IsZero() && len(p.runtimes()) > 0 {
		will.Told = time.Now()
	}
	return p.host.save(will)
}

// removeOld removes what the version before had and this one has not.
func (p *plan) removeOld(will *record) error {
	if p.is == nil {
		return nil
	}
	for path := range p.is.Files {
		if _, ok := will.Files[path]; ok {
			continue
		}
		data, err := p.host.read(path)
		if err != nil {
			return err
		}
		if p.is.ours(path, data) {
			if err := p.host.remove(p.host.file(path)); err != nil {
				return err
			}
		}
	}
	if err := p.host.removeLinks(p.is.Links, will.Links); err != nil {
		return err
	}
	for path := range p.is.Blocks {
		if _, ok := will.Blocks[path]; !ok {
			cut, err := p.host.cutBlock(path, p.is)
			if err != nil {
				return err
			}
			if !cut {
				p.notes = append(p.notes, fmt.Sprintf("the block of ccv2 in %s was changed by hand and stays", path))
			}
		}
	}
	return nil
}

// prune removes the trees of versions that no process runs from. What else there is below
// the prefix is not ours.
func (h Host) prune(r *record, out io.Writer) error {
	current, err := h.target(h.currentPath())
	if err != nil {
		return err
	}
	kept := []string{r.Version}
	for _, version := range r.Trees {
		if version == r.Version {
			continue
		}
		if version == current { // an upgrade was interrupted: pods are started from there
			kept = append(kept, version)
			continue
		}
		path := filepath.Join(h.Prefix, version)
		if pids := h.users(path); len(pids) > 0 {
			fmt.Fprintf(out, "%s stays: %d processes of running pods are from there; the next upgrade removes it\n", path, len(pids))
			kept = append(kept, version)
			continue
		}
		if err := h.removeTree(version); err != nil {
			return err
		}
	}
	if slices.Equal(kept, r.Trees) {
		return nil
	}
	r.Trees = kept
	return h.save(r)
}

// InUseError says that pods run, whose files would be taken away.
type InUseError struct {
	Prefix string
	Pids   []string // of processes
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%d processes of pods run from %s (such as %s): end these pods first; nothing was changed", len(e.Pids), e.Prefix, e.Pids[0])
}

// Uninstall takes away all that installations have made. Pods that run keep it from
// doing anything. What others have made with it goes before, by first, if it is not nil.
func Uninstall(h Host, dry bool, out io.Writer, first func() error) error {
	if !dry {
		unlock, err := lock(h)
		if err != nil {
			return err
		}
		defer unlock()
	}
	r, err := h.load()
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("there is no %s: nothing is installed", h.recordPath())
	}
	if pids := h.users(h.Prefix); len(pids) > 0 {
		return &InUseError{Prefix: h.Prefix, Pids: pids}
	}
	if dry {
		for _, path := range slices.Sorted(maps.Keys(r.Blocks)) {
			fmt.Fprintf(out, "--- the block of ccv2 in %s\n", path)
		}
		for _, path := range slices.Concat(slices.Sorted(maps.Keys(r.Files)), slices.Sorted(maps.Keys(r.Links)), []string{h.Prefix}) {
			fmt.Fprintf(out, "--- %s\n", path)
		}
		return nil
	}
	if first == nil {
		first = func() error { return nil }
	}
	err = first()
	if err == nil {
		err = h.takeAway(r, out)
	}
	if err != nil {
		return fmt.Errorf("%w; run it again: what is left is removed then", err)
	}
	fmt.Fprintf(out, "uninstalled ccv2 %s\n", r.Version)
	return nil
}

// takeAway removes everything, the record and the directories that it is in last.
func (h Host) takeAway(r *record, out io.Writer) error {
	for path := range r.Blocks {
		cut, err := h.cutBlock(path, r)
		if err != nil {
			return err
		}
		if !cut {
			fmt.Fprintf(out, "the block of ccv2 in %s was changed by hand and stays\n", path)
		}
	}
	if err := errors.Join(h.removeFiles(r, out), h.removeLinks(r.Links, nil), h.removeNew(r)); err != nil {
		return err
	}
	for _, version := range r.Trees {
		if err := h.removeTree(version); err != nil {
			return err
		}
	}
	if err := errors.Join(h.remove(h.RuntimeClass()), removeDirs(h, r.Dirs, false)); err != nil {
		return err
	}
	if err := h.remove(h.recordPath()); err != nil {
		return err
	}
	return removeDirs(h, r.Dirs, true)
}

// removeDirs removes the directories that were made: those without the record, or with it.
func removeDirs(h Host, dirs []string, withRecord bool) error {
	for _, dir := range slices.Backward(dirs) {
		if strings.HasPrefix(h.recordPath(), dir+"/") != withRecord {
			continue
		}
		if !withRecord { // else there is no other time
			if err := h.change(); err != nil {
				return err
			}
		}
		// Others may have put something there.
		if err := os.Remove(h.at(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) && !isNotEmpty(err) {
			return err
		}
	}
	return nil
}

// removeFiles removes the files of a record that are as we wrote them.
func (h Host) removeFiles(r *record, out io.Writer) error {
	for path := range r.Files {
		data, err := h.read(path)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if !r.ours(path, data) {
			fmt.Fprintf(out, "%s was changed by hand and stays\n", path)
			continue
		}
		if err := h.remove(h.file(path)); err != nil {
			return err
		}
	}
	return nil
}

// removeNew removes what an interruption has left of making a file or a link.
func (h Host) removeNew(r *record) error {
	paths := slices.Concat(slices.Collect(maps.Keys(r.Files)), slices.Collect(maps.Keys(r.Blocks)), []string{h.recordPath(), h.RuntimeClass()})
	for i, path := range paths {
		paths[i] = h.file(path)
	}
	for _, path := range slices.Concat(paths, slices.Collect(maps.Keys(r.Links))) {
		if err := os.Remove(h.at(path) + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeLinks removes links that point where we had them point, but for those to keep.
func (h Host) removeLinks(links, keep map[string]string) error {
	for path, want := range links {
		if keep[path] != "" {
			continue
		}
		if target, err := h.target(path); err == nil && (target == want || path == h.currentPath()) {
			if err := h.remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// cutBlock cuts our block out of a file, which goes when it was made for it. cut is
// false when the block is not as we wrote it.
func (h Host) cutBlock(path string, r *record) (cut bool, err error) {
	text, err := h.read(path)
	if err != nil {
		return false, err
	}
	rest, old, had := withoutBlock(text)
	switch {
	case !had: // unless somebody has cut its end off
		return !bytes.Contains(text, []byte(blockBegin)), nil
	case !r.oursBlock(path, old):
		return false, nil
	}
	if head, _ := newConfig(path); r.Blocks[path].Created && string(rest) == head {
		return true, h.remove(h.file(path))
	}
	return true, h.write(path, rest)
}
