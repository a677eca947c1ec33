package manager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hooks"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/reclaim"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Stop is the delete command: it releases what a container has acquired, from
// disk alone, after its shim has died or when it is known to be done. It
// answers with the recorded exit status, or 137 when there is none.
//
// The sandbox goes with the sandbox container, unless others were left when its
// shim deleted that: they end it. It also goes when its shim is dead,
// whichever container is deleted: nothing else would ever clean it up.
func (m *Manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, reclaim.Timeout)
	defer cancel()
	dir, err := bundleDir(ctx, id)
	if err != nil {
		return shim.StopStatus{}, err
	}
	// A start command that is still under way comes first, and none comes later.
	unlock, err := bundle.Lock(ctx, dir)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
	case err != nil:
		return shim.StopStatus{}, fmt.Errorf("delete container %s: %w", id, err)
	default:
		defer unlock()
		if err := cleanUp(ctx, id, dir); err != nil {
			return shim.StopStatus{}, fmt.Errorf("delete container %s: %w", id, err)
		}
	}
	exit, err := bundle.LoadExit(dir)
	if err != nil {
		if !errors.Is(err, errdefs.ErrNotFound) {
			log.G(ctx).WithError(err).Warn("read exit status")
		}
		n, _ := bundle.LoadNote(dir) // without it the event of the exit names no pid
		return shim.StopStatus{ExitedAt: time.Now(), ExitStatus: 128 + int(syscall.SIGKILL), Pid: n.PID}, nil
	}
	return shim.StopStatus{ExitedAt: exit.At, ExitStatus: int(exit.Status), Pid: exit.PID}, nil
}

// cleanUp does the work of Stop for a bundle that is locked.
func cleanUp(ctx context.Context, id, dir string) error {
	if err := bundle.MarkDeleted(dir); err != nil {
		log.G(ctx).WithError(err).Warn("keep later start commands out") // a full disk, which must not stop the removal
	}
	note, err := bundle.LoadNote(dir)
	switch {
	case errors.Is(err, errdefs.ErrNotFound): // nothing was acquired
		err = stopUnusedShim(ctx, id, dir)
	case err == nil:
		if err = remove(ctx, id, dir, note); err == nil && note.Poststop {
			runPoststop(ctx, id, dir, note)
		}
	}
	if err != nil {
		return err
	}
	removeSocket(ctx, dir)
	return nil
}

// runPoststop runs the hooks that a dead shim has not run.
func runPoststop(ctx context.Context, id, dir string, note bundle.Note) {
	if state, err := store.Open(note.Dir).Load(); err == nil && state.Shim.Alive() {
		return // it does that
	}
	b, err := bundle.Load(dir)
	if err == nil {
		err = hooks.Of(id, b).Stopped(ctx)
	}
	note.Poststop = false
	if err = errors.Join(err, bundle.SaveNote(dir, note)); err != nil {
		log.G(ctx).WithError(err).WithField("container", id).Error("hooks of a removed container")
	}
}

// stopUnusedShim ends a shim that was started for a sandbox which got no request
// yet: containerd died too early.
func stopUnusedShim(ctx context.Context, id, dir string) error {
	if group, err := sandboxOf(dir, id); err != nil || group != id {
		return nil //nolint:nilerr // another container's shim, or no bundle
	}
	a, err := bundle.LoadAddress(dir)
	if err != nil || a.Shim == nil {
		return nil //nolint:nilerr // none was started here
	}
	return a.Shim.Kill(ctx)
}

// shimExitGrace is how long a shim that has released everything may take to
// answer containerd, and to end.
const shimExitGrace = 2 * time.Second

// stopIdleShim ends a shim that has released everything. Usually it is about to
// end by itself; containerd may have died before it has said so.
func stopIdleShim(ctx context.Context, dir string) error {
	a, err := bundle.LoadAddress(dir)
	if err != nil || a.Shim == nil {
		return nil // none was started here
	}
	grace, cancel := context.WithTimeout(ctx, shimExitGrace)
	defer cancel()
	if a.Shim.Wait(grace) == nil {
		return nil
	}
	return a.Shim.Kill(ctx)
}

// removeSocket removes the socket of a shim that is dead.
func removeSocket(ctx context.Context, dir string) {
	a, err := bundle.LoadAddress(dir)
	if err != nil || shim.CanConnect(a.Address) {
		return // nothing is known, or another container's shim lives there
	}
	if err := shim.RemoveSocket(a.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.G(ctx).WithError(err).Warn("remove socket of dead shim")
	}
}

// bundleDir is the bundle of a container: given by containerd, or found beside
// the working directory, which is a bundle.
func bundleDir(ctx context.Context, id string) (string, error) {
	if opts, ok := ctx.Value(shim.OptsKey{}).(shim.Opts); ok && opts.BundlePath != "" {
		return opts.BundlePath, nil
	}
	cwd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find bundle: %w", err)
	}
	return filepath.Join(filepath.Dir(cwd), id), nil
}

// remove releases what a container has acquired.
func remove(ctx context.Context, id, dir string, note bundle.Note) error {
	record := store.Open(note.Dir)
	state, err := record.Load()
	if errors.Is(err, errdefs.ErrNotFound) {
		if id == note.SandboxID {
			if err := stopIdleShim(ctx, dir); err != nil {
				return err
			}
		}
		return reclaim.Sandbox(ctx, record) // a record that is gone was removed by the shim, perhaps not wholly
	}
	if id != note.SandboxID && err != nil {
		return err // of another release, whose shim may live: the sandbox is not this container's
	}
	if (id != note.SandboxID || note.Outlived || servesOthers(dir, note)) && state.Shim.Alive() {
		return nil // the living shim owns the container's part
	}
	if err == nil && state.Shim.Alive() && state.Shim.PID != os.Getpid() {
		if err := state.Shim.Kill(ctx); err != nil {
			return err
		}
	}
	return reclaim.Sandbox(ctx, record)
}
