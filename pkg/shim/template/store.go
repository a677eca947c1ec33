package template

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	failedSuffix = ".failed" // why it could not be made
)

func (s *Store) path(key Key) string { return filepath.Join(s.Dir, string(key)) }

// Template is one that is whole.
type Template struct {
	Key   Key
	Index Index
	Used  time.Time // for the last time
	path  string
}

// Open returns the template of a key. Without one it is errdefs.ErrNotFound; one that this
// version cannot read is removed, and errdefs.ErrNotFound as well.
func (s *Store) Open(key Key) (*Template, error) {
	t, err := s.load(key)
	if err == nil || errors.Is(err, errdefs.ErrNotFound) {
		return t, err
	}
	return nil, fmt.Errorf("%w: %w", s.refuse(key, err), errdefs.ErrNotFound)
}

// refuse removes a template that cannot be used, and returns the cause.
func (s *Store) refuse(key Key, cause error) error {
	return errors.Join(fmt.Errorf("template %s: %w", key, cause), s.Remove(key))
}

func (s *Store) load(key Key) (*Template, error) {
	t := &Template{Key: key, path: s.path(key)}
	err := jsonfile.Read(filepath.Join(t.path, indexFile), &t.Index)
	if err != nil {
		return nil, err
	}
	if err := t.Index.check(key); err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(t.path, indexFile))
	if err != nil {
		return nil, err
	}
	t.Used = info.ModTime()
	return t, nil
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
	// The index first: without one it is none.
	err := os.Remove(filepath.Join(s.path(key), indexFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, os.RemoveAll(s.path(key))); err != nil {
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
var ownName = regexp.MustCompile(`^([0-9a-f]{32}(\.part|\.failed)?|lock)$`)

// clean removes the templates beyond MaxBytes, from the end of [Store.List], and what makers
// that died have left. The caller has the lock.
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
	left, err := filepath.Glob(filepath.Join(s.Dir, "*"+partSuffix))
	errs = append(errs, err)
	for _, part := range left {
		errs = append(errs, os.RemoveAll(part))
	}
	return errors.Join(errs...)
}

// lock has one process at a time make a template. When another one does it is
// errdefs.ErrUnavailable.
func (s *Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.Dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: another process makes a template: %w: %w", path, err, errdefs.ErrUnavailable)
	}
	// For who has to end it; on a full disk nobody can.
	_ = f.Truncate(0)
	_, _ = f.WriteString(strconv.Itoa(os.Getpid()))
	return func() { _ = f.Close() }, nil
}

// EndMaker ends the process that makes a template, if there is one, and waits for it. Its VM
// ends with it.
func (s *Store) EndMaker(ctx context.Context) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for {
		unlock, err := s.lock()
		if err == nil {
			unlock()
			return nil
		}
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return err
		}
		b, readErr := os.ReadFile(filepath.Join(s.Dir, lockFile))
		if pid, numErr := strconv.Atoi(string(b)); readErr == nil && numErr == nil && pid > 1 && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end who makes a template: %w: %w", ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
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
	return string(b)
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
