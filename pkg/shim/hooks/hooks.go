package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// outputLimit is how much of what a hook writes gets into its error, in bytes.
const outputLimit = 1 << 10

// outputDelay is how long the output of a hook is waited for that has ended, and has
// left it to a process in the background.
const outputDelay = time.Second

// Hooks are those of one container. They are safe for concurrent use.
type Hooks struct {
	id     string
	bundle *bundle.Bundle
	hooks  specs.Hooks

	mu  sync.Mutex // guards due
	due bool       // poststop
}

// Of returns the hooks of a container.
func Of(id string, b *bundle.Bundle) *Hooks {
	h := &Hooks{id: id, bundle: b}
	if b.Spec.Hooks != nil {
		h.hooks = *b.Spec.Hooks
	}
	h.due = len(h.hooks.Poststop) > 0
	return h
}

// Create runs prestart and createRuntime. The first error ends it.
func (h *Hooks) Create(ctx context.Context, pid int) error {
	if err := h.run(ctx, "prestart", h.hooks.Prestart, specs.StateCreating, pid); err != nil {
		return err
	}
	return h.run(ctx, "createRuntime", h.hooks.CreateRuntime, specs.StateCreating, pid)
}

// Started runs poststart. The first error ends it.
func (h *Hooks) Started(ctx context.Context, pid int) error {
	return h.run(ctx, "poststart", h.hooks.Poststart, specs.StateRunning, pid)
}

// Due reports whether there are poststop hooks that were not run yet. nil has none.
func (h *Hooks) Due() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.due
}

// Stopped runs poststop, once, each of them whatever became of those before.
func (h *Hooks) Stopped(ctx context.Context) error {
	h.mu.Lock()
	due := h.due
	h.due = false
	h.mu.Unlock()
	if !due {
		return nil
	}
	var errs []error
	for i := range h.hooks.Poststop {
		errs = append(errs, h.run(ctx, "poststop", h.hooks.Poststop[i:i+1], specs.StateStopped, 0))
	}
	return errors.Join(errs...)
}

// run runs hooks of one kind.
func (h *Hooks) run(ctx context.Context, kind string, all []specs.Hook, status specs.ContainerState, pid int) error {
	state, err := json.Marshal(specs.State{
		Version: specs.Version, ID: h.id, Status: status, Pid: pid,
		Bundle: h.bundle.Dir, Annotations: h.bundle.Spec.Annotations,
	})
	if err != nil {
		return fmt.Errorf("encode the state for %s hooks: %w", kind, err)
	}
	for _, hook := range all {
		if err := h.call(ctx, hook, state); err != nil {
			return fmt.Errorf("%s hook %s: %w", kind, hook.Path, err)
		}
	}
	return nil
}

// call runs one hook.
func (h *Hooks) call(ctx context.Context, hook specs.Hook, state []byte) error {
	if !filepath.IsAbs(hook.Path) {
		return errors.New("its path must be absolute")
	}
	if hook.Timeout != nil {
		if *hook.Timeout <= 0 {
			return fmt.Errorf("its timeout is %d s, and must be more than 0", *hook.Timeout)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(*hook.Timeout)*time.Second, fmt.Errorf("killed after its timeout of %d s", *hook.Timeout))
		defer cancel()
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, hook.Path)
	cmd.Args, cmd.Env, cmd.Dir = hook.Args, hook.Env, h.bundle.Dir
	if len(cmd.Args) == 0 {
		cmd.Args = []string{hook.Path}
	}
	if len(cmd.Env) == 0 { // as with runc
		cmd.Env = []string{}
		if p := h.bundle.Spec.Process; p != nil {
			cmd.Env = append(cmd.Env, p.Env...)
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(state), &output, &output, outputDelay
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if text := bytes.TrimSpace(output.Bytes()); len(text) > 0 {
		return fmt.Errorf("%w: %s", err, text[max(0, len(text)-outputLimit):])
	}
	return err
}
