package config_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

var update = flag.Bool("update", false, "write the golden files")

// host is a directory with the files that a configuration names.
func host(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"qemu": 0o755, "virtiofsd": 0o755, "kernel": 0o644, "image": 0o644} {
		write(t, filepath.Join(dir, name), "", mode)
	}
	write(t, filepath.Join(dir, "config.toml"), `
hypervisor.path = "`+dir+`/qemu"
guest.kernel = "`+dir+`/kernel"
guest.image = "`+dir+`/image"
share.virtiofsd = "`+dir+`/virtiofsd"
`, 0o644)
	if err := os.Mkdir(filepath.Join(dir, "config.toml.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, dir string, annotations map[string]string) config.Config {
	t.Helper()
	c, err := config.Load(filepath.Join(dir, "config.toml"), annotations)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultFileIsDefaults(t *testing.T) {
	var got config.Config
	meta, err := toml.Decode(string(config.Default), &got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Defaults(), got); diff != "" {
		t.Errorf("config.toml differs from Defaults (-compiled +file):\n%s", diff)
	}
	// Every key is in the file: encoding the defaults names no other ones.
	var all bytes.Buffer
	if err := toml.NewEncoder(&all).Encode(config.Defaults()); err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	want, err := toml.Decode(all.String(), &tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range want.Keys() {
		if !meta.IsDefined(key...) {
			t.Errorf("%s is not in config.toml", key)
		}
	}
}

func TestBadFiles(t *testing.T) {
	inputs, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no inputs", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".toml"), func(t *testing.T) {
			dir := host(t)
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, "config.toml.d", filepath.Base(input))
			write(t, name, strings.ReplaceAll(string(text), "DIR", dir), 0o644)
			_, err = config.Load(filepath.Join(dir, "config.toml"), nil)
			if err == nil {
				t.Fatal("no error")
			}
			golden(t, strings.TrimSuffix(input, ".toml")+".err", strings.ReplaceAll(err.Error(), dir, "DIR")+"\n")
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		write(t, path, got, 0o644)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestDropIns(t *testing.T) {
	dir := host(t)
	for name, text := range map[string]string{
		"20-b.toml":   "vm.vcpus = 3",
		"10-a.toml":   "[vm]\nvcpus = 2\nmemory_mib = 1024",
		"30-c.conf":   "vm.vcpus = 9", // another suffix
		".hidden.bak": "garbage",
	} {
		write(t, filepath.Join(dir, "config.toml.d", name), text, 0o644)
	}
	got := load(t, dir, nil)
	if diff := cmp.Diff(config.VM{VCPUs: 3, MemoryMiB: 1024, OverheadMiB: config.Defaults().VM.OverheadMiB, HostMemoryMiB: config.Defaults().VM.HostMemoryMiB, VhostNet: true}, got.VM); diff != "" {
		t.Errorf("vm (-want +got):\n%s", diff)
	}
}

// TestMissingFile is the only complaint: what the file would have said is not
// known.
func TestMissingFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "none.toml"), nil)
	if err == nil || !strings.Contains(err.Error(), "none.toml does not exist; create it") {
		t.Errorf("got %v", err)
	}
	if _, broken := config.Parse("broken.toml", "[vm", nil); broken == nil || strings.Contains(errors.Join(err, broken).Error(), "guest.kernel") {
		t.Errorf("got %v, %v", err, broken)
	}
}

func TestAnnotations(t *testing.T) {
	const allow = `annotations.allow = ["io.ccv2.vm.vcpus", "io.ccv2.guest.kernel_args", "io.ccv2.guest.boot_timeout", "io.ccv2.guest.console"]`
	for _, tt := range []struct {
		name, allow string
		set         map[string]string
		want        func(*config.Config)
		err         string
	}{
		{name: "none", want: func(*config.Config) {}},
		{name: "others", set: map[string]string{"io.kubernetes.x": "y"}, want: func(*config.Config) {}},
		{
			name: "allowed", allow: allow,
			set: map[string]string{
				"io.ccv2.vm.vcpus": "4", "io.ccv2.guest.kernel_args": "a b", "io.ccv2.guest.boot_timeout": "1m", "io.ccv2.guest.console": "true",
			},
			want: func(c *config.Config) {
				c.VM.VCPUs, c.Guest.KernelArgs = 4, []string{"a", "b"}
				c.Guest.BootTimeout, c.Guest.Console = config.Duration(time.Minute), true
			},
		},
		{
			name: "not allowed", set: map[string]string{"io.ccv2.vm.vcpus": "4"},
			err: "configuration: annotation io.ccv2.vm.vcpus: is not allowed; add it to annotations.allow",
		},
		{
			name: "never allowed", set: map[string]string{"io.ccv2.guest.kernel": "/tmp/k", "io.ccv2.nonsense": ""},
			err: "configuration: annotation io.ccv2.guest.kernel: there is no such key, or it cannot be set by a container\n" +
				"annotation io.ccv2.nonsense: there is no such key, or it cannot be set by a container",
		},
		{
			name: "wrong type", allow: allow,
			set: map[string]string{"io.ccv2.vm.vcpus": "many", "io.ccv2.guest.console": "maybe"},
			err: "configuration: annotation io.ccv2.guest.console: \"maybe\" is neither true nor false\n" +
				"annotation io.ccv2.vm.vcpus: \"many\" is not a whole number",
		},
		{
			name: "wrong value", allow: allow, set: map[string]string{"io.ccv2.vm.vcpus": "1000"},
			err: "configuration: annotation io.ccv2.vm.vcpus: vm.vcpus: 1000 is not between 1 and 240",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := host(t)
			write(t, filepath.Join(dir, "config.toml.d", "allow.toml"), tt.allow, 0o644)
			want := load(t, dir, nil)
			got, err := config.Load(filepath.Join(dir, "config.toml"), tt.set)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tt.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	dir := host(t)
	text, err := os.ReadFile(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse("options", string(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(load(t, dir, nil), got); diff != "" {
		t.Errorf("(-file +memory):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	_, err = config.Parse("options", "nonsense = 1", nil)
	if err == nil || !strings.Contains(err.Error(), "options:1: nonsense: there is no such key") {
		t.Errorf("got %v", err)
	}
}

// Any text gives a configuration or errors that name it, and never a panic.
func FuzzParse(f *testing.F) {
	f.Add(string(config.Default))
	inputs, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := config.Parse("x.toml", text, map[string]string{"io.ccv2.vm.vcpus": text})
		if err == nil {
			t.Fatal("an annotation that is not a number was accepted")
		}
		if got.VM.VCPUs != config.Defaults().VM.VCPUs && !strings.Contains(text, "vcpus") {
			t.Fatalf("vcpus became %d without being named", got.VM.VCPUs)
		}
	})
}
