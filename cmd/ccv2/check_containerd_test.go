package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// process makes a process in a process file system below dir.
func process(t *testing.T, dir, pid, comm, namespace, version string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, pid, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, pid, "comm"), comm+"\n", 0o644)
	if err := os.Symlink(namespace, filepath.Join(dir, pid, "ns", "mnt")); err != nil {
		t.Fatal(err)
	}
	if pid != "self" {
		script(t, filepath.Join(dir, pid, "exe"), "containerd github.com/containerd/containerd "+version)
	}
}

// TestCheckContainerd: each form in which containerds tell their version.
func TestCheckContainerd(t *testing.T) {
	for _, tt := range []struct {
		version string
		verdict verdict
		detail  string
	}{
		{"1.6.20~ds1 1.6.20~ds1-1+deb12u3", verdictOK, "1.6.20~ds1 runs"},
		{"v1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", verdictOK, "v1.7.27 runs"},
		{"2.4.2+unknown ", verdictOK, "2.4.2+unknown runs"},
		{"v1.5.18 4dcbdb4", verdictFail, "v1.5.18 runs"},
		{"v2.5.0-rc.1 abc", verdictWarn, "v2.5.0-rc.1 runs; tested are 1.6 to 2.4"},
		{"v3.0.0 abc", verdictWarn, "v3.0.0 runs; tested are 1.6 to 2.4"},
		{"of somebody", verdictWarn, `/7/exe --version says "containerd github.com/containerd/containerd of somebody"`},
	} {
		dir := t.TempDir()
		process(t, dir, "self", "ccv2", "mnt:[1]", "")
		process(t, dir, "7", "containerd", "mnt:[1]", tt.version)
		process(t, dir, "8", "containerd-shim", "mnt:[1]", "v0.1.0 x")
		process(t, dir, "9", "containerd", "mnt:[2]", "v0.1.0 x") // in a container
		got := checkContainerd(t.Context(), dir)
		if detail := strings.ReplaceAll(got.detail, dir, ""); got.verdict != tt.verdict || detail != tt.detail {
			t.Errorf("%s: %s %q, want %s %q", tt.version, got.verdict, detail, tt.verdict, tt.detail)
		}
	}
}

// TestCheckContainerdOfHost: in a pod of the DaemonSet it is the host's that counts.
func TestCheckContainerdOfHost(t *testing.T) {
	dir := t.TempDir()
	process(t, dir, "self", "ccv2", "mnt:[3]", "")
	process(t, dir, "1", "systemd", "mnt:[1]", "")
	process(t, dir, "7", "containerd", "mnt:[1]", "v2.4.2 x")
	process(t, dir, "9", "containerd", "mnt:[2]", "v0.1.0 x") // in a container
	if got := checkContainerd(t.Context(), dir); got.verdict != verdictOK || got.detail != "v2.4.2 runs" {
		t.Errorf("%+v", got)
	}
}

// TestCheckContainerds: the worst of several counts, and all are told.
func TestCheckContainerds(t *testing.T) {
	dir := t.TempDir()
	process(t, dir, "self", "ccv2", "mnt:[1]", "")
	process(t, dir, "6", "containerd", "mnt:[1]", "v2.9.0 x")
	process(t, dir, "7", "containerd", "mnt:[1]", "v1.5.0 x")
	process(t, dir, "8", "containerd", "mnt:[1]", "v1.7.0 x")
	got := checkContainerd(t.Context(), dir)
	if want := "v2.9.0 runs; tested are 1.6 to 2.4\nv1.5.0 runs\nv1.7.0 runs"; got.verdict != verdictFail || got.detail != want {
		t.Errorf("%s %q, want %q", got.verdict, got.detail, want)
	}
}

// TestCheckNoContainerd: that which is installed is asked when none runs.
func TestCheckNoContainerd(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if got := checkContainerd(t.Context(), dir); got.verdict != verdictWarn || !strings.Contains(got.detail, "does not run, and is not on the PATH") {
		t.Errorf("none: %+v", got)
	}
	writeFile(t, dir+"/containerd", "#!/bin/sh\necho 'containerd c v1.7.1 x'\n", 0o755)
	if got := checkContainerd(t.Context(), dir); got.verdict != verdictOK || got.detail != "v1.7.1 is installed and does not run" {
		t.Errorf("installed: %+v", got)
	}
	writeFile(t, dir+"/containerd", "#!/bin/sh\nexit 1\n", 0o755)
	if got := checkContainerd(t.Context(), dir); got.verdict != verdictFail {
		t.Errorf("broken: %+v", got)
	}
}
