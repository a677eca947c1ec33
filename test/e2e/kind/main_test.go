//go:build kind

package kind_test

import (
	"context"
	_ "embed" // functions.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

//go:embed functions.sh
var functions []byte

// row is what a user applies and types, and what differs in a VM.
type row struct {
	name string
	// short rows are those of the short form: what every change must not break.
	short    bool
	manifest string
	script   string // a command of sh in each line, with functions.sh
	// want is in the transcript with runc: the row has found what it is about.
	want string
	// differs is the reason why a VM gives another transcript; wantVM is then in it.
	differs, wantVM string
	// only says that there is nothing to compare with: the row is about VMs.
	only bool
}

// rowTimeout means that a row hangs.
const rowTimeout = 5 * time.Minute

// TestRows has the rows that can be played beside others.
func TestRows(t *testing.T) {
	playAll(t, true, slices.Concat(exampleRows, processRows, configRows, volumeRows, workloadRows, networkRows, limitRows, rightRows, lifecycleRows))
}

// TestNodes has the rows that need a node for themselves.
func TestNodes(t *testing.T) { playAll(t, false, slices.Concat(crowdRows, nodeRows)) }

func playAll(t *testing.T, parallel bool, rows []row) {
	examples, err := filepath.Abs("../../../deploy/examples")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // in the background, as it takes seconds
		out, err := exec.Command("kubectl", "wait", "--for=delete", "namespace", "--selector=ccv2-row", "--timeout=150s").CombinedOutput()
		if err != nil {
			t.Errorf("namespaces cannot be deleted: %v: %s", err, out)
		}
	})
	for i, r := range rows {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			if os.Getenv("CCV2_SHORT") != "" && !r.short {
				t.Skip("not in the short form")
			}
			if parallel {
				t.Parallel()
			}
			runc := ""
			if !r.only {
				runc = play(t, r, i, "runc", examples)
				if !strings.Contains(runc, r.want) {
					t.Fatalf("with runc there is no %q in\n%s", r.want, runc)
				}
			}
			if os.Getenv("CCV2_RUNTIME") == "runc" {
				return // whoever writes a row looks at that first
			}
			compare(t, r, runc, play(t, r, i, "ccv2", examples))
		})
	}
}

func compare(t *testing.T, r row, runc, vm string) {
	t.Helper()
	switch {
	case r.only && !strings.Contains(vm, r.want):
		t.Errorf("in a VM there is no %q in\n%s", r.want, vm)
	case r.differs != "" && !strings.Contains(vm, r.wantVM):
		t.Errorf("in a VM (%s) there is no %q in\n%s", r.differs, r.wantVM, vm)
	case r.differs != "" && runc == vm:
		t.Errorf("in a VM it is what it is with runc, and should differ (%s):\n%s", r.differs, vm)
	case r.differs == "" && !r.only && runc != vm:
		t.Errorf("in a VM (+) it is not what it is with runc (-):\n%s", cmp.Diff(runc, vm))
	}
}

// play gives the transcript of a row, and deletes all that it has made.
func play(t *testing.T, r row, i int, runtime, examples string) string {
	t.Helper()
	dir := t.TempDir()
	ns := fmt.Sprintf("%s-%d-%d", runtime, i, time.Now().Unix()%1000000) // that of the run before may still be going
	for name, text := range map[string]string{"manifest.yaml": outdent(r.manifest), "functions.sh": string(functions)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "ns="+ns, "runtime="+runtime, "dir="+dir, "examples="+examples)
	begin := time.Now()
	shell(t, dir, env, "kubectl create namespace $ns >/dev/null && kubectl label namespace $ns ccv2-row= >/dev/null")
	defer func() {
		if left := shell(t, dir, env, "k delete deployments,daemonsets,statefulsets,jobs,cronjobs --all --wait=false >/dev/null 2>&1\n"+
			"k delete pods --all --grace-period=1 --timeout=100s >/dev/null 2>&1 || k get pods\n"+
			"kubectl delete namespace $ns --wait=false >/dev/null"); left != "" {
			t.Errorf("its pods cannot be deleted: %s", left)
		}
		t.Logf("%s: %.1f s", runtime, time.Since(begin).Seconds())
	}()
	text := strings.Builder{}
	for line := range strings.Lines(r.script) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(&text, "printf '$ %%s\\n' '%s'\n%s\necho \"[$?]\"\n", strings.ReplaceAll(line, "'", `'\''`), line)
		}
	}
	got := shell(t, dir, env, text.String())
	t.Logf("%s:\n%s", runtime, got)
	return normalise(got, ns)
}

// shell runs a script with the functions, and ends what that leaves in the background.
func shell(t *testing.T, dir string, env []string, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rowTimeout)
	defer cancel()
	out, err := os.Create(filepath.Join(dir, "transcript"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.CommandContext(ctx, "sh", "-c", ". ./functions.sh\n"+text)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left in the background
	data, errRead := os.ReadFile(out.Name())
	if err := errors.Join(err, errRead, ctx.Err()); err != nil {
		return fmt.Sprintf("%s[%v]\n", data, err)
	}
	return string(data)
}

// outdent removes the indentation that a manifest has in a row.
func outdent(text string) string {
	lines := strings.Split(strings.TrimLeft(text, "\n"), "\n")
	indent := len(lines[0]) - len(strings.TrimLeft(lines[0], "\t"))
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, strings.Repeat("\t", indent))
	}
	return strings.Join(lines, "\n")
}

// variable is what differs between two runs of the same commands.
var variable = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)`), "<time>"},
	{regexp.MustCompile(`\b(10|172)\.\d+\.\d+\.\d+\b`), "<ip>"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<uid>"},
	{regexp.MustCompile(`(Handling connection for) \d+`), "$1 <port>"},
	{regexp.MustCompile(`(-[a-f0-9]{7,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "-<name>"},
}

func normalise(text, ns string) string {
	text = strings.ReplaceAll(text, ns, "<namespace>")
	for _, v := range variable {
		text = v.is.ReplaceAllString(text, v.as)
	}
	return text
}
