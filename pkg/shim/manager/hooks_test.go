package manager

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// TestPoststop is run by delete when the shim is dead and has not done it, once.
func TestPoststop(t *testing.T) {
	dir, shimProcess, _ := sandboxOn(t)
	bundlePath := t.TempDir()
	spec, err := json.Marshal(specs.Spec{Hooks: &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >>state"}}}}})
	if err == nil {
		err = os.WriteFile(filepath.Join(bundlePath, "config.json"), spec, 0o600)
	}
	if err == nil {
		err = bundle.SaveNote(bundlePath, bundle.Note{Dir: dir.Path(), SandboxID: "pod", Share: "c", Poststop: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	deleted(t, bundlePath, "c")
	if _, err := os.Stat(filepath.Join(bundlePath, "state")); err == nil {
		t.Error("the hook of a living shim's container was run")
	}
	if err := shimProcess.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		deleted(t, bundlePath, "c")
	}
	b, err := os.ReadFile(filepath.Join(bundlePath, "state"))
	var state specs.State
	if err == nil {
		err = json.Unmarshal(b, &state) // one, and nothing after it
	}
	if err != nil || state.Status != specs.StateStopped || state.ID != "c" || state.Pid != 0 {
		t.Errorf("state %s: %v", b, err)
	}
}
