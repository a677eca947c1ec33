package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func TestCandidates(t *testing.T) {
	for _, tt := range []struct {
		p    Program
		want []string
	}{
		{Program{Args: []string{"/bin/x"}, Cwd: "/d"}, []string{"/bin/x"}},
		{Program{Args: []string{"./x"}, Cwd: "/d"}, []string{"/d/x"}},
		{Program{Args: []string{"x"}, Cwd: "/d", Env: []string{"A=b", "PATH=/bin::rel:/usr/bin"}}, []string{"/bin/x", "/d/x", "/d/rel/x", "/usr/bin/x"}},
		{Program{Args: []string{"x"}, Cwd: "/"}, nil},
	} {
		if diff := cmp.Diff(tt.want, tt.p.candidates()); diff != "" {
			t.Errorf("%+v: %s", tt.p, diff)
		}
	}
}

func TestCheckHead(t *testing.T) {
	others := false
	othersToo := func() bool { return others }
	find := func(name string) error {
		switch name {
		case "/bin/sh":
			return nil
		case "/unknown":
			return errors.New("input/output error")
		}
		return os.ErrNotExist
	}
	long := "#!/" + strings.Repeat("x", headSize-3)
	for head, want := range map[string]uint8{
		"":                    exitNotExecutable,
		"\x7fEL":              exitNotExecutable,
		"echo":                exitNotExecutable,
		"#!":                  exitNotExecutable,
		"#! \t\nx":            exitNotExecutable,
		"#!/bin/sh":           0,
		"#! /bin/sh -e\n":     0,
		"#!\t/bin/sh\t-e\n":   0,
		"#!/nope\n":           exitNotFound,
		"#!/bin/sh\r\n":       exitNotFound,
		"#!/unknown\n":        0, // cannot be judged
		"#!relative\n":        0,
		long:                  0, // cut
		"\x7fELF":             0, // too short to be judged
		"\x7fELF" + elf(0xf3): exitNotExecutable,
	} {
		err := checkHead([]byte(head), othersToo, find)
		var got uint8
		if ce, ok := errors.AsType[*hyperstart.GuestError](err); ok {
			got = ce.ExitStatus
		} else if err != nil {
			t.Errorf("%q: error without a class: %v", head, err)
		}
		if got != want {
			t.Errorf("%q: exit status %d, want %d", head, got, want)
		}
	}
	others = true
	for _, head := range []string{"echo", "\x7fELF" + elf(0xf3)} {
		if err := checkHead([]byte(head), othersToo, find); err != nil {
			t.Errorf("%q on a kernel that may know it: %v", head, err)
		}
	}
	for _, machine := range machines[runtime.GOARCH] {
		if err := checkHead([]byte("\x7fELF"+elf(byte(machine))), othersToo, find); err != nil {
			t.Errorf("machine %d: %v", machine, err)
		}
	}
}

// elf is what follows the magic of a little-endian file for a machine.
func elf(machine byte) string { return strings.Repeat("\x00", 14) + string([]byte{machine, 0}) }

// TestCheckProgram finds the programs of this very process.
func TestCheckProgram(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"no": 0o644, "yes": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/nope\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	check := func(args ...string) error {
		return checkProgram(os.Getpid(), Program{Args: args, Cwd: dir, Env: []string{"PATH=/nonexistent:" + dir}})
	}
	if err := check("yes"); err == nil || !strings.HasPrefix(err.Error(), "exec yes: ") {
		t.Errorf("got %v", err)
	}
	// The OCI runtime has the better words for these.
	for _, name := range []string{"no", "missing", dir} {
		if err := check(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := check(self); err != nil {
		t.Error(err)
	}
}
