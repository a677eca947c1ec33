//go:build e2e

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// builtProgram puts one of testdata into dir, for a container without any library. It is built, with
// env, or is in the directory CCV2_PROGRAMS, on a host that cannot build it.
func builtProgram(tb testing.TB, dir, name string, env ...string) (path string) {
	tb.Helper()
	path = filepath.Join(dir, name)
	if built := os.Getenv("CCV2_PROGRAMS"); built != "" {
		b, err := os.ReadFile(filepath.Join(built, name))
		if err == nil {
			err = os.WriteFile(path, b, 0o755)
		}
		if err != nil {
			tb.Fatal(err)
		}
		return path
	}
	build := exec.Command("go", "build", "-o", path, "./testdata/"+name)
	build.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}
