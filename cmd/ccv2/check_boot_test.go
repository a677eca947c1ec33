package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guestDir is where a built guest is; the test is skipped where there is none.
func guestDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CCV2_GUEST")
	if dir == "" {
		dir = "../../build/guest"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/vmlinux", dir + "/initrd.img", "/usr/bin/qemu-system-x86_64", "/usr/lib/qemu/virtiofsd"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("needs a built guest (make guest) and QEMU: %v", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return dir
}

func TestCheckBootsProbe(t *testing.T) {
	guest := guestDir(t)
	_, _, dir := testHost(t)
	writeFile(t, dir+"/config.toml", `state_dir = "`+dir+`/state"
guest.kernel = "`+guest+`/vmlinux"
guest.image = "`+guest+`/initrd.img"
`, 0o644)
	var out, errs bytes.Buffer
	if status := dispatch([]string{"check", "--config", dir + "/config.toml"}, &out, &errs); status != 0 {
		t.Fatalf("status %d\n%s%s", status, out.String(), errs.String())
	}
	for _, want := range []string{
		`ok +probe vm +\d+\.\S+, agent \S+, ready for containers after \S+s`,
		`kernel until the agent says READY +\S+s`,
		`QEMU without the guest's memory +[1-9]\d+\.\d MiB`,
		`guest: kernel, image and agent +[1-9]\d+\.\d MiB`,
		`podFixed:\n +memory: \d{3}Mi`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s is not in:\n%s", want, out.String())
		}
	}
	nothingLeft(t, dir)
}

func TestCheckTellsWhyNoBoot(t *testing.T) {
	guest := guestDir(t)
	_, _, dir := testHost(t)
	// An image without an agent: the kernel finds no init.
	writeFile(t, dir+"/config.toml", `state_dir = "`+dir+`/state"
guest.kernel = "`+guest+`/vmlinux"
guest.image = "`+dir+`/image"
`, 0o644)
	var out, errs bytes.Buffer
	if status := dispatch([]string{"check", "--config", dir + "/config.toml"}, &out, &errs); status != 1 {
		t.Fatalf("status %d\n%s%s", status, out.String(), errs.String())
	}
	for _, want := range []string{"ccv2 check: probe vm: boot sandbox probe", "last console lines", "Kernel panic"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not in:\n%s", want, errs.String())
		}
	}
	nothingLeft(t, dir)
}

// nothingLeft checks that no process, mount or file below dir remains.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir + "/state"); err == nil {
		t.Error("the state directory was left behind")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(dir)) {
		t.Error("a mount was left behind")
	}
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("a process was left behind: %s", bytes.ReplaceAll(b, []byte{0}, []byte(" ")))
		}
	}
}

func TestCheckUsage(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"check", "-h"}, 0, "-no-boot"},
		{[]string{"check", "extra"}, 1, `unexpected argument "extra"`},
		{[]string{"check", "--nope"}, 1, "not defined: -nope"},
		{[]string{"check", "--no-boot", "--config", "/nonexistent.toml"}, 1, "cannot run sandboxes yet"},
	} {
		var stdout, stderr bytes.Buffer
		if got := dispatch(tt.args, &stdout, &stderr); got != tt.status || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%v: status %d, %q", tt.args, got, stderr.String())
		}
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if status := dispatch([]string{"version"}, &out, &out); status != 0 || !strings.HasPrefix(out.String(), "ccv2 devel go1.") {
		t.Errorf("status %d, %q", status, out.String())
	}
}
