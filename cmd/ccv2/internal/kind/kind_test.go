package kind

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeEngine has nodes, and a cluster that kubectl speaks of. hack/bundle-engine-test.sh
// tries a real one.
type fakeEngine struct {
	all      []node
	bare     bool              // no node is privileged
	fails    map[string]string // by the words of a command: what it says
	ran      []string
	unpacked map[string][]string // names in the archives, by node
	labelled map[string]bool
	overhead map[string]int
	applied  string
}

func (f *fakeEngine) nodes(context.Context) ([]node, error)          { return f.all, nil }
func (f *fakeEngine) privileged(context.Context, node) (bool, error) { return !f.bare, nil }

func (f *fakeEngine) unpack(_ context.Context, n node, archive io.Reader) error {
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.unpacked[n.name] = append(f.unpacked[n.name], fmt.Sprintf("%s%s %o", h.Name, h.Linkname, h.Mode))
	}
}

func (f *fakeEngine) run(_ context.Context, n node, stdin string, stdout, stderr io.Writer, command ...string) error {
	line := strings.TrimPrefix(strings.Join(command, " "), "kubectl --kubeconfig=/etc/kubernetes/admin.conf ")
	f.ran = append(f.ran, n.name+" "+line)
	if said, ok := f.fails[n.name+" "+line]; ok {
		fmt.Fprintln(stderr, said)
		return &exitError{command: command[0], status: 1}
	}
	words := strings.Fields(line)
	switch {
	case command[0] == "cat":
		fmt.Fprintf(stdout, "overhead:\n  podFixed:\n    memory: %dMi\n", f.overhead[n.name])
	case line == "apply -f -":
		f.applied = stdin
	case strings.HasPrefix(line, "get nodes"):
		for name := range f.labelled {
			fmt.Fprintln(stdout, "node/"+name)
		}
	case strings.HasPrefix(line, "label --overwrite node ") && strings.HasSuffix(line, " ccv2.io/runtime=true"):
		f.labelled[words[3]] = true
	case strings.HasPrefix(line, "label node ") && strings.HasSuffix(line, " ccv2.io/runtime-"):
		delete(f.labelled, words[2])
	}
	return nil
}

// newFake is an engine with the cluster "one" of three nodes, and another one.
func newFake() *fakeEngine {
	f := &fakeEngine{
		fails: make(map[string]string), unpacked: make(map[string][]string), labelled: make(map[string]bool),
		overhead: map[string]int{"one-control-plane": 96, "one-worker": 128, "one-worker2": 112},
	}
	for _, n := range []node{
		{name: "one-worker", role: worker},
		{name: "one-control-plane", role: controlPlane},
		{name: "one-worker2", role: worker},
		{name: "one-external-load-balancer", role: "external-load-balancer"},
		{name: "two-control-plane", cluster: "two", role: controlPlane},
	} {
		n.id, n.state = n.name, running
		if n.cluster == "" {
			n.cluster = "one"
		}
		f.all = append(f.all, n)
	}
	return f
}

// unpackedBundle is a directory with what there is in a bundle: a program, a link.
func unpackedBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "bin"), 0o755), os.WriteFile(filepath.Join(dir, "bin/ccv2"), []byte("x"), 0o755), os.Symlink("ccv2", filepath.Join(dir, "bin/link")))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOpen: what cannot be is said before anything is done.
func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		cluster string
		nodes   []string
		change  func(*fakeEngine)
		want    string // of the error, or the nodes
	}{
		{cluster: "one", want: "one-control-plane, one-worker, one-worker2"},
		{cluster: "one", nodes: []string{"one-worker2"}, want: "one-worker2"},
		{cluster: "three", want: `no kind cluster "three"; it has one, two`},
		{cluster: "one", change: func(f *fakeEngine) { f.all = nil }, want: "and no other one"},
		{cluster: "one", nodes: []string{"x"}, want: "has no node x, its nodes are one-control-plane, one-worker, one-worker2"},
		{cluster: "one", nodes: []string{"one-external-load-balancer"}, want: "has no node one-external-load-balancer"},
		{cluster: "one", change: func(f *fakeEngine) { f.all[0].state = "exited" }, want: "one-worker is exited; start it"},
		{cluster: "one", nodes: []string{"one-worker2"}, change: func(f *fakeEngine) { f.all[0].state = "exited" }, want: "one-worker2"},
		{cluster: "one", nodes: []string{"one-worker"}, change: func(f *fakeEngine) { f.all[1].state = "exited" }, want: "no node of the control plane of cluster one runs"},
		{cluster: "one", change: func(f *fakeEngine) { f.bare = true }, want: "one-control-plane is a container without -privileged"},
	} {
		f := newFake()
		if tt.change != nil {
			tt.change(f)
		}
		c, err := open(t.Context(), f, tt.cluster, tt.nodes, io.Discard)
		got := fmt.Sprint(err)
		if err == nil {
			got = namesOf(c.nodes)
		}
		if !strings.Contains(got, tt.want) || len(f.ran) > 0 {
			t.Errorf("%s %v: %s, want %q; ran %v", tt.cluster, tt.nodes, got, tt.want, f.ran)
		}
	}
}

func opened(t *testing.T, f *fakeEngine, out io.Writer, nodes ...string) *Cluster {
	t.Helper()
	c, err := open(t.Context(), f, "one", nodes, out)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInstall: the bundle comes into each node, the tool runs there, and nothing of the copy
// stays; the cluster gets the overhead of the node where it is highest.
func TestInstall(t *testing.T) {
	f := newFake()
	c := opened(t, f, io.Discard)
	if err := errors.Join(c.Install(t.Context(), unpackedBundle(t), "install", []string{"-restart=true"}), c.Tell(t.Context(), "/p")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one-control-plane", "one-worker", "one-worker2"} {
		slices.Sort(f.unpacked[name])
		if diff := cmp.Diff([]string{".ccv2-bundle/bin/ccv2 755", ".ccv2-bundle/bin/linkccv2 777"}, f.unpacked[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		at := slices.Index(f.ran, name+" /.ccv2-bundle/bin/ccv2 install -restart=true")
		if at < 1 || f.ran[at-1] != name+" rm -rf /.ccv2-bundle" || f.ran[at+1] != name+" rm -rf /.ccv2-bundle" {
			t.Errorf("%s: ran %q", name, f.ran)
		}
	}
	if !strings.Contains(f.applied, "128Mi") || len(f.labelled) != 3 {
		t.Errorf("applied %q, labelled %v", f.applied, f.labelled)
	}
}

// TestInstallFails: what the tool says is the error, no further node is touched, and the
// copy does not stay.
func TestInstallFails(t *testing.T) {
	f := newFake()
	f.fails["one-worker /.ccv2-bundle/bin/ccv2 install"] = "ccv2 install: no room"
	err := opened(t, f, io.Discard).Install(t.Context(), unpackedBundle(t), "install", nil)
	if err == nil || err.Error() != "node one-worker: ccv2 install: no room; done are one-control-plane: run it again" {
		t.Error(err)
	}
	if last := f.ran[len(f.ran)-1]; last != "one-worker rm -rf /.ccv2-bundle" {
		t.Errorf("ended with %s", last)
	}
}

// TestUninstall: a node loses its label before its files, and gets it back when they stay;
// the RuntimeClass goes with the last.
func TestUninstall(t *testing.T) {
	const tool, gone = " /.ccv2-bundle/bin/ccv2 uninstall", "one-control-plane delete runtimeclass ccv2 --ignore-not-found"
	f := newFake()
	f.labelled = map[string]bool{"one-worker": true, "one-worker2": true}
	f.fails["one-worker"+tool] = "ccv2 uninstall: 3 processes of pods run"
	c := opened(t, f, io.Discard, "one-worker")
	if err := c.Uninstall(t.Context(), "/p", nil, false); err == nil || !strings.Contains(err.Error(), "3 processes") || !f.labelled["one-worker"] {
		t.Errorf("%v, labelled %v", err, f.labelled)
	}
	f.fails, f.ran = nil, nil
	if err := c.Uninstall(t.Context(), "/p", nil, false); err != nil || f.labelled["one-worker"] || slices.Contains(f.ran, gone) {
		t.Errorf("%v, labelled %v, ran %q", err, f.labelled, f.ran)
	}
	if unlabel := slices.Index(f.ran, "one-control-plane label node one-worker ccv2.io/runtime-"); unlabel < 0 || unlabel > slices.Index(f.ran, "one-worker"+tool) {
		t.Errorf("ran %q", f.ran)
	}
	if err := opened(t, f, io.Discard).Uninstall(t.Context(), "/p", nil, true); err == nil && slices.Contains(f.ran, gone) || len(f.labelled) != 1 {
		t.Errorf("a dry run: %v, labelled %v, ran %q", err, f.labelled, f.ran)
	}
	if err := opened(t, f, io.Discard).Uninstall(t.Context(), "/p", nil, false); err != nil || len(f.labelled) > 0 || !slices.Contains(f.ran, gone) {
		t.Errorf("%v, labelled %v, ran %q", err, f.labelled, f.ran)
	}
}

// TestUninstallAgain: what was interrupted after one node goes on with the next; what is
// somewhere else keeps its label.
func TestUninstallAgain(t *testing.T) {
	const gone = "one-control-plane delete runtimeclass ccv2 --ignore-not-found"
	f := newFake()
	f.labelled = map[string]bool{"one-worker": true, "one-worker2": true}
	f.fails["one-control-plane ls -d /p/installed.json"] = "no such file"
	f.fails["one-control-plane /.ccv2-bundle/bin/ccv2 uninstall"] = "ccv2 uninstall: nothing is installed"
	if err := opened(t, f, io.Discard).Uninstall(t.Context(), "/p", nil, false); err != nil || len(f.labelled) > 0 || !slices.Contains(f.ran, gone) {
		t.Errorf("%v, labelled %v, ran %q", err, f.labelled, f.ran)
	}
	if !slices.Contains(f.ran, "one-control-plane rm -rf /.ccv2-bundle") {
		t.Errorf("what an interrupted installation has left stays: ran %q", f.ran)
	}
	f = newFake()
	f.labelled = map[string]bool{"one-worker": true}
	for _, n := range []string{"one-control-plane", "one-worker", "one-worker2"} {
		f.fails[n+" ls -d /other/installed.json"] = "no such file"
	}
	if err := opened(t, f, io.Discard).Uninstall(t.Context(), "/other", nil, false); err == nil || !strings.Contains(err.Error(), "-prefix names another place") || !f.labelled["one-worker"] || slices.Contains(f.ran, gone) {
		t.Errorf("%v, labelled %v, ran %q", err, f.labelled, f.ran)
	}
}

// TestLines: each line says of which node it is, however it is written.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	l := &lines{to: &out, prefix: "n: "}
	for _, text := range []string{"a", "b\nc\n", "d"} {
		if _, err := io.WriteString(l, text); err != nil {
			t.Fatal(err)
		}
	}
	l.end()
	if got := out.String(); got != "n: ab\nn: c\nn: d\n" {
		t.Errorf("%q", got)
	}
}
