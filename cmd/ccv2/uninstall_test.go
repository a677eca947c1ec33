package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUninstallTemplates: templates go with what they were made with. What could not remove
// them has removed nothing, and can be run again.
func TestUninstallTemplates(t *testing.T) {
	root := t.TempDir()
	if err := runInstall([]string{"-root", root, "-bundle", unpacked(t, "1.0")}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "var/lib/ccv2/templates")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "0123456789abcdef0123456789abcdef"), 0o700), os.Mkdir(filepath.Join(root, "keep"), 0o700)); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // as who makes one has it
		t.Fatal(err)
	}
	if err := runUninstall([]string{"-root", root}, io.Discard, io.Discard); err == nil {
		t.Error("uninstalled while a template is made")
	}
	if _, err := os.Stat(filepath.Join(root, "opt/ccv2/current/bin/ccv2")); err != nil {
		t.Error(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := runUninstall([]string{"-root", root}, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("templates: %v", err)
	}
}

// TestNodeUninstall: so they do when a pod of the DaemonSet takes it away.
func TestNodeUninstall(t *testing.T) {
	i := newInstaller(io.Discard, io.Discard)
	i.host.Root = t.TempDir()
	if err := runInstall([]string{"-root", i.host.Root, "-bundle", unpacked(t, "1.0")}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(i.host.Root, "var/lib/ccv2/templates/0123456789abcdef0123456789abcdef")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := i.nodeAgent(nil, "").Uninstall(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("templates: %v", err)
	}
}
