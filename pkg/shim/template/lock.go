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
	return s.makers().Take()
}

// turn is lock for who makes a template, who may want to wait for it.
func (s *Store) turn(ctx context.Context) (unlock func(), err error) {
	unlock, err = s.lock()
	if s.Waits && errors.Is(err, errdefs.ErrUnavailable) {
		return s.makers().await(ctx, func(hostproc.Process) error { return nil })
	}
	return unlock, err
}

func (s *Store) makers() Lock {
	return Lock{Path: filepath.Join(s.Dir, lockFile), Does: "makes a template"}
}

// EndMaker ends the process that makes a template, if there is one, and waits for it. Its VM
// ends with it.
func (s *Store) EndMaker(ctx context.Context) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := s.makers().TakeOver(ctx)
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// Lock is a file that one process at a time has, and that names it.
type Lock struct {
	Path string
	Does string // what the process does that has it
}

// Take takes the lock. When another process has it, it is errdefs.ErrUnavailable.
func (l Lock) Take() (unlock func(), err error) {
	f, err := l.open()
	if err != nil {
		return nil, err
	}
	if self, err := hostproc.Of("process that "+l.Does, os.Getpid()); err == nil {
		// For who has to end it; on a full disk nobody can.
		_ = f.Truncate(0)
		_ = json.NewEncoder(f).Encode(self)
	}
	return func() {
		_ = f.Truncate(0)
		_ = f.Close()
	}, nil
}

// open locks the file that has the path then: it may have been removed meanwhile.
func (l Lock) open() (*os.File, error) {
	for {
		f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: another process %s: %w: %w", l.Path, l.Does, err, errdefs.ErrUnavailable)
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(l.Path); err == nil && os.SameFile(ours, now) {
			return f, nil
		}
		_ = f.Close()
	}
}

// Holder is the process that has the lock, as far as is known.
func (l Lock) Holder() (p hostproc.Process, ok bool) {
	err := jsonfile.Read(l.Path, &p)
	return p, err == nil && p.PID > 0 && p.Alive()
}

// TakeOver takes the lock, and ends who has it.
func (l Lock) TakeOver(ctx context.Context) (unlock func(), err error) {
	return l.await(ctx, func(p hostproc.Process) error { return p.Kill(ctx) })
}

// await takes the lock as soon as nobody else has it. Until then what is to be done about
// who has it is done, time and again.
func (l Lock) await(ctx context.Context, about func(hostproc.Process) error) (unlock func(), err error) {
	for {
		unlock, err := l.Take()
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return unlock, err
		}
		if p, ok := l.Holder(); ok && p.PID != os.Getpid() {
			if err := about(p); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the end of the process that %s: %w: %w", l.Does, ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
