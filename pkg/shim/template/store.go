package template

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
)

// Store is a directory of templates, which root alone can read: they have the memory of
// guests.
type Store struct {
	Dir string
	// MaxBytes bounds what all of them take on disk; the one that was not used for the
	// longest time goes first.
	MaxBytes int64
	// Waits has Make wait while another process makes a template.
	Waits bool
}

// Key is the name of a template.
type Key string

// KeyOf is the key of what depends on facts, the lines of a fingerprint.
func KeyOf(facts string) Key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s", formatVersion, facts))
	return Key(fmt.Sprintf("%x", sum[:16]))
}

// Files of a template, and beside it.
const (
	indexFile   = "index.json"
	memoryFile  = "memory"
	devicesFile = "devices"

	lockFile     = "lock"    // held by who makes one
	partSuffix   = ".part"   // one that is not whole
	goneSuffix   = ".gone"   // one that a process removes, whose number follows
	failedSuffix = ".failed" // why it could not be made
)

func (s *Store) path(key Key) string { return filepath.Join(s.Dir, string(key)) }

// Template is one that is whole.
type Template struct {
	Key   Key
	Index Index
	Used  time.Time // for the last time
	path  string
	info  os.FileInfo // of the index
}

// Open returns the template of a key. Without one it is errdefs.ErrNotFound; one that this
// version cannot read is removed, and errdefs.ErrNotFound as well.
func (s *Store) Open(key Key) (*Template, error) {
	if err := s.checkDir(); err != nil {
		return nil, err
	}
	t, err := s.load(key)
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, errdefs.ErrNotFound):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w: %w", errRefused, s.refuseThis(t, err), errdefs.ErrNotFound)
}

// errRefused says that there was a template, which cannot be used.
var errRefused = errors.New("it cannot be used")

// checkDir refuses a directory that others can write to: who writes a template owns guests.
func (s *Store) checkDir() error {
	var st unix.Stat_t
	switch err := unix.Stat(s.Dir, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &os.PathError{Op: "stat", Path: s.Dir, Err: err}
	}
	const others = 0o022
	if uid := os.Geteuid(); int(st.Uid) != uid || st.Mode&others != 0 {
		return fmt.Errorf("templates in %s, which belongs to user %d and has the mode %04o: others can write to it: %w; chown %d and chmod 0700, or set [template] dir",
			s.Dir, st.Uid, st.Mode&0o7777, errdefs.ErrFailedPrecondition, uid)
	}
	return nil
}

// refuse removes a template that cannot be used, and returns the cause.
func (s *Store) refuse(key Key, cause error) error {
	return errors.Join(fmt.Errorf("template %s: %w", key, cause), s.Remove(key))
}

// refuseThis is refuse for the very template, not for one that has replaced it.
func (s *Store) refuseThis(t *Template, cause error) error {
	if now, err := os.Stat(filepath.Join(t.path, indexFile)); err == nil && !os.SameFile(now, t.info) {
		return fmt.Errorf("template %s, which was replaced: %w", t.Key, cause)
	}
	return s.refuse(t.Key, cause)
}

// load reads a template. It comes with an error as well, unless there is none.
func (s *Store) load(key Key) (*Template, error) {
	t := &Template{Key: key, path: s.path(key)}
	index := filepath.Join(t.path, indexFile)
	// Before it is read: another one may take its place at any time.
	info, err := os.Stat(index)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("template %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return t, err
	}
	t.Used, t.info = info.ModTime(), info
	if err := jsonfile.Read(index, &t.Index); err != nil {
		return t, err
	}
	return t, t.Index.check(key)
}

// touch notes that a template is used.
func (t *Template) touch() {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(t.path, indexFile), now, now) // it may have been removed: then it is not needed
}

// List returns all templates, the one that was used last first. What is not a template,
// or not one of this version, is left out.
func (s *Store) List() ([]*Template, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var all []*Template
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), partSuffix) {
			continue
		}
		if t, err := s.load(Key(e.Name())); err == nil {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *Template) int { return b.Used.Compare(a.Used) })
	return all, nil
}

// Remove removes a template. VMs that go on from it are not concerned. That there is none
// is no error.
func (s *Store) Remove(key Key) error {
	// Out of the way at once: nobody sees a half of it, and what replaces it is left alone.
	gone := fmt.Sprintf("%s%s%d", s.path(key), goneSuffix, os.Getpid())
	err := os.RemoveAll(gone) // of a process that had this one's number
	if renamed := os.Rename(s.path(key), gone); !errors.Is(renamed, os.ErrNotExist) {
		err = errors.Join(err, renamed)
	}
	if err = errors.Join(err, os.RemoveAll(gone)); err != nil {
		return fmt.Errorf("remove template %s: %w", key, err)
	}
	return nil
}

// RemoveAll removes all that a store has made, and its directory when nothing else is in it.
// While a template is made it is errdefs.ErrUnavailable.
func (s *Store) RemoveAll() error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := s.lock()
	if err != nil {
		return fmt.Errorf("remove templates: %w", err)
	}
	defer unlock()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("remove templates: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if ownName.MatchString(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.Dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove templates: %w", err)
	}
	if err := os.Remove(s.Dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove templates: %w", err)
	}
	return nil
}

// ownName matches the names of what a store makes.
var ownName = regexp.MustCompile(`^([0-9a-f]{32}(\.part|\.failed|\.gone[0-9]+)?|lock)$`)

// clean removes the templates beyond MaxBytes, from the end of [Store.List]. The caller has
// the lock.
func (s *Store) clean() error {
	all, err := s.List()
	if err != nil {
		return err
	}
	var errs []error
	var sum int64
	for i, t := range all {
		sum += t.Index.Bytes()
		if i > 0 && sum > s.MaxBytes {
			errs = append(errs, s.Remove(t.Key))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what processes that died have left, and reasons that are old. The caller
// has the lock.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if name == lockFile || !ownName.MatchString(name) {
			continue
		}
		switch {
		case strings.HasSuffix(name, failedSuffix):
			if s.Failed(Key(strings.TrimSuffix(name, failedSuffix))) != "" {
				continue
			}
		case !strings.HasSuffix(name, partSuffix) && !strings.Contains(name, goneSuffix):
			if _, err := os.Stat(filepath.Join(s.Dir, name, indexFile)); !errors.Is(err, os.ErrNotExist) {
				continue
			}
		}
		errs = append(errs, os.RemoveAll(filepath.Join(s.Dir, name)))
	}
	return errors.Join(errs...)
}

// retryAfter is how long a template that could not be made is not tried again.
const retryAfter = time.Hour

// Failed returns why the template could not be made, not long ago; "" when it could, or was
// not tried.
func (s *Store) Failed(key Key) string {
	path := s.path(key) + failedSuffix
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) > retryAfter {
		return ""
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// Failures are the reasons of [Store.Failed], by key.
func (s *Store) Failures() (map[Key]string, error) {
	paths, err := filepath.Glob(filepath.Join(s.Dir, "*"+failedSuffix))
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	all := map[Key]string{}
	for _, path := range paths {
		key := Key(strings.TrimSuffix(filepath.Base(path), failedSuffix))
		if why := s.Failed(key); why != "" {
			all[key] = why
		}
	}
	return all, nil
}

// setFailed notes why a template could not be made, or with nil that it could.
func (s *Store) setFailed(key Key, cause error) {
	path := s.path(key) + failedSuffix
	if cause == nil {
		_ = os.Remove(path)
		return
	}
	_ = os.WriteFile(path, []byte(cause.Error()+"\n"), 0o600) // on a full disk it is tried again sooner
}
