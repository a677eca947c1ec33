//go:build e2e && workloads

package workloads_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// pjdfstestConfig turns on what Linux has. The users are Debian's.
const pjdfstestConfig = `[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.05
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
`

// verdict is a line of its output: a test, and how it ended.
var verdict = regexp.MustCompile(`(?m)^(\w+(?:::\w+)+)\s+(\w+)`)

// told are tests that end otherwise in a VM, and why.
var told = map[string]string{
	"link::link_count_max": "pathconf knows the most links of a file by the kind of file system, and of FUSE none",
}

// TestPjdfstest: each of its tests ends on the root file system and on a volume as with
// runc.
func TestPjdfstest(t *testing.T) {
	program := os.Getenv("CCV2_PJDFSTEST")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("run make workloads, which builds pjdfstest: %v", err)
	}
	config := filepath.Join(t.TempDir(), "pjdfstest.toml")
	if err := os.WriteFile(config, []byte(pjdfstestConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	shared.Watch(t)
	for _, dir := range []string{"/root", "/data"} {
		script := fmt.Sprintf("chmod 755 /root; mkdir %[1]s/test && cd %[1]s/test && TERM=dumb exec /opt/pjdfstest -c /opt/pjdfstest.toml -p %[1]s/test", dir)
		id := "pjdfstest" + strings.ReplaceAll(dir, "/", "-")
		programs := []specs.Mount{
			{Destination: "/opt/pjdfstest", Type: "bind", Source: program, Options: []string{"bind", "ro"}},
			{Destination: "/opt/pjdfstest.toml", Type: "bind", Source: config, Options: []string{"bind", "ro"}},
		}
		theirs, ours := verdicts(run(t, harness.Runc, id+"-runc", script, programs...)), verdicts(run(t, harness.Runtime, id, script, programs...))
		for name := range told {
			delete(theirs, name)
			delete(ours, name)
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("%s: -runc +ccv2:\n%s", dir, diff)
		}
		ended := make(map[string]int)
		for how := range maps.Values(theirs) {
			ended[how]++
		}
		if ended["ok"] < 100 {
			t.Errorf("%s: with runc %v", dir, ended)
		}
		for _, how := range slices.Sorted(maps.Keys(ended)) {
			t.Logf("%s: %d %s", dir, ended[how], how)
		}
	}
}

func verdicts(output string) map[string]string {
	all := make(map[string]string)
	for _, m := range verdict.FindAllStringSubmatch(output, -1) {
		all[m[1]] = m[2]
	}
	return all
}
