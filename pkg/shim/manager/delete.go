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

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// Stop is the delete command: it gives back what a container has taken, from
// disk alone, after its shim has died or when it is known to be done. It
// answers with the recorded exit status, or 137 when there is none.
//
// The sandbox goes with its own container, unless others were left when its shim
// deleted that: they end it. It also goes when its shim is dead,
// whichever container is deleted: nothing else would ever clean it up.
func (m *Manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, store.Timeout)
	defer cancel()
	bundle, err := bundleDir(ctx, id)
	if err != nil {
		return shim.StopStatus{}, err
	}
	// A start command that is still under way comes first, and none comes later.
	unlock, err := store.LockBundle(ctx, bundle)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
	case err != nil:
		return shim.StopStatus{}, fmt.Errorf("delete container %s: %w", id, err)
	default:
		defer unlock()
		if err := clean(ctx, id, bundle); err != nil {
			return shim.StopStatus{}, fmt.Errorf("delete container %s: %w", id, err)
		}
	}
	exit, err := store.LoadExit(bundle)
	if err != nil {
		if !errors.Is(err, errdefs.ErrNotFound) {
			log.G(ctx).WithError(err).Warn("read exit status")
		}
		b, _ := store.LoadBundle(bundle) // without it the event of the exit names no pid
		return shim.StopStatus{ExitedAt: time.Now(), ExitStatus: 128 + int(syscall.SIGKILL), Pid: b.PID}, nil
	}
	return shim.StopStatus{ExitedAt: exit.At, ExitStatus: int(exit.Status), Pid: exit.PID}, nil
}

// clean does the work of Stop for a bundle that is locked.
func clean(ctx context.Context, id, bundle string) error {
	if err := store.SaveDeleted(bundle); err != nil {
		log.G(ctx).WithError(err).Warn("keep later start commands out") // a full disk, which must not stop the removal
	}
	b, err := store.LoadBundle(bundle)
	switch {
	case errors.Is(err, errdefs.ErrNotFound): // nothing was taken
		err = endUnused(ctx, id, bundle)
	case err == nil:
		err = remove(ctx, id, bundle, b)
	}
	if err != nil {
		return err
	}
	removeSocket(ctx, bundle)
	return nil
}

// endUnused ends a shim that was started for a sandbox of which nothing was
// asked yet: containerd died too early.
func endUnused(ctx context.Context, id, bundle string) error {
	if group, err := SandboxOf(bundle, id); err != nil || group != id {
		return nil //nolint:nilerr // another container's shim, or no bundle
	}
	a, err := store.LoadAddress(bundle)
	if err != nil || a.Shim == nil {
		return nil //nolint:nilerr // none was started here
	}
	return a.Shim.Kill(ctx)
}

// lastWords is how long a shim that has given everything back may take to tell
// containerd so, and to end.
const lastWords = 2 * time.Second

// endIdle ends a shim that has given everything back. Usually it is about to
// end by itself; containerd may have died before it has said so.
func endIdle(ctx context.Context, bundle string) error {
	a, err := store.LoadAddress(bundle)
	if err != nil || a.Shim == nil {
		return nil // none was started here
	}
	words, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	if a.Shim.Wait(words) == nil {
		return nil
	}
	return a.Shim.Kill(ctx)
}

// removeSocket removes the socket of a shim that is dead.
func removeSocket(ctx context.Context, bundle string) {
	a, err := store.LoadAddress(bundle)
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

// remove gives back what a container has taken.
func remove(ctx context.Context, id, bundle string, b store.Bundle) error {
	dir := store.Open(b.Dir)
	state, err := dir.Load()
	if errors.Is(err, errdefs.ErrNotFound) {
		if id == b.SandboxID {
			if err := endIdle(ctx, bundle); err != nil {
				return err
			}
		}
		return dir.Remove(ctx) // a record that is gone was removed by the shim, perhaps not wholly
	}
	if id != b.SandboxID && err != nil {
		return err // of another release, whose shim may live: the sandbox is not this container's
	}
	if (id != b.SandboxID || b.Outlived) && state.Shim.Alive() {
		return nil // the living shim owns the container's part
	}
	if err == nil && state.Shim.Alive() && state.Shim.PID != os.Getpid() {
		if err := state.Shim.Kill(ctx); err != nil {
			return err
		}
	}
	return dir.Remove(ctx)
}
