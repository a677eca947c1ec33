package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
)

// lock has one process at a time make a template. When another one does it is
// errdefs.ErrUnavailable.
func (s *Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.Dir, lockFile)
	f, err := LockFile(path, "makes a template")
	if err != nil {
		return nil, err
	}
	if self, err := hostproc.Of("process that makes a template", os.Getpid()); err == nil {
		// For who has to end it; on a full disk nobody can.
		_ = f.Truncate(0)
		_ = json.NewEncoder(f).Encode(self)
	}
	return func() {
		_ = f.Truncate(0)
		_ = f.Close()
	}, nil
}

// LockFile locks the file that has a path then: it may have been removed meanwhile. When another
// process has it, which does something, it is errdefs.ErrUnavailable. Closing the file unlocks it.
func LockFile(path, does string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: another process %s: %w: %w", path, does, err, errdefs.ErrUnavailable)
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(ours, now) {
			return f, nil
		}
		_ = f.Close()
	}
}

// maker is the process that makes a template, as far as is known.
func (s *Store) maker() (p hostproc.Process, ok bool) {
	err := jsonfile.Read(filepath.Join(s.Dir, lockFile), &p)
	return p, err == nil && p.PID > 0 && p.Alive()
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
		if maker, ok := s.maker(); ok && maker.PID != os.Getpid() {
			if err := maker.Kill(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end who makes a template: %w: %w", ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
