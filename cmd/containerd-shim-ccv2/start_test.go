package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// recorder is a starter that remembers what it was asked for.
type recorder struct {
	namespace string
	params    *bootapi.BootstrapParams
	err       error
}

func (r *recorder) Start(ctx context.Context, p *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	r.namespace, _ = namespaces.Namespace(ctx)
	r.params = p
	return &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: "unix:///run/s"}, r.err
}

// withInput makes os.Stdin something to read, for the test.
func withInput(t *testing.T, input []byte) {
	t.Helper()
	before := os.Stdin
	f, err := fileWith(input)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdin = f
	t.Cleanup(func() {
		_ = f.Close()
		if os.Stdin != f {
			_ = os.Stdin.Close()
		}
		os.Stdin = before
	})
}

// TestStartLegacy: the answer is the address and nothing else, and it is where
// the next containerd looks.
func TestStartLegacy(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TTRPC_ADDRESS", "/c.sock.ttrpc")
	withInput(t, nil)
	var r recorder
	var answer bytes.Buffer
	done, err := startLegacy(t.Context(), &r, strings.Fields("-namespace n -address /c.sock -publish-binary b -id c start"), &answer)
	if err != nil || !done {
		t.Fatalf("done %v, %v", done, err)
	}
	want := &bootapi.BootstrapParams{InstanceID: "c", Namespace: "n", ContainerdGrpcAddress: "/c.sock", ContainerdTtrpcAddress: "/c.sock.ttrpc"}
	if diff := cmp.Diff(want, r.params, protocmp.Transform()); diff != "" || r.namespace != "n" {
		t.Errorf("namespace %q, parameters:\n%s", r.namespace, diff)
	}
	saved, err := os.ReadFile("address")
	if err != nil || string(saved) != "unix:///run/s" || answer.String() != "unix:///run/s" {
		t.Errorf("answer %q, saved %q, %v", answer.String(), saved, err)
	}
}

// TestStartLegacyFails: there is no answer, and no address that leads nowhere.
func TestStartLegacyFails(t *testing.T) {
	t.Chdir(t.TempDir())
	withInput(t, nil)
	var answer bytes.Buffer
	r := recorder{err: errors.New("no room")}
	if done, err := startLegacy(t.Context(), &r, strings.Fields("-namespace n -id c start"), &answer); !done || !errors.Is(err, r.err) || answer.Len() > 0 {
		t.Errorf("done %v, %v, answer %q", done, err, answer.String())
	}
	if _, err := os.Stat("address"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("address: %v", err)
	}
	withInput(t, []byte("what is this"))
	if done, err := startLegacy(t.Context(), &r, strings.Fields("-namespace n -id c start"), &answer); !done || err == nil {
		t.Errorf("input of no known form: done %v, %v", done, err)
	}
}

// TestStartOfTheFramework: parameters are left to the framework, to the last byte.
func TestStartOfTheFramework(t *testing.T) {
	large := &bootapi.Extension{Value: nil}
	params := &bootapi.BootstrapParams{InstanceID: "c", Namespace: "n", ContainerdVersion: strings.Repeat("2", 1<<20), Extensions: []*bootapi.Extension{large}}
	input, err := proto.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args  string
		input []byte
	}{
		"start":  {"-namespace n -id c -debug start", input},
		"delete": {"-namespace n -id c -bundle /b delete", nil},
		"info":   {"-info", []byte("options")},
		"serve":  {"-namespace n -id c -address a", []byte("not read")},
	} {
		withInput(t, tt.input)
		var r recorder
		if done, err := startLegacy(t.Context(), &r, strings.Fields(tt.args), io.Discard); done || err != nil || r.params != nil {
			t.Errorf("%s: done %v, %v, parameters %v", name, done, err, r.params)
		}
		if got, err := io.ReadAll(os.Stdin); err != nil || !bytes.Equal(got, tt.input) {
			t.Errorf("%s: %d bytes of the input are left, want %d, %v", name, len(got), len(tt.input), err)
		}
	}
}
