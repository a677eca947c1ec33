package bootstrap

import (
	"slices"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// options are those of a runtime as containerd sends them: the name of their type
// is without a host.
func options(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestParse has the calls of each containerd.
func TestParse(t *testing.T) {
	const grpc, ttrpc = "/run/containerd/containerd.sock", "/run/containerd/containerd.sock.ttrpc"
	flags := []string{"-namespace", "k8s.io", "-address", grpc, "-publish-binary", "/usr/bin/containerd", "-id", "c1"}
	start := append(slices.Clip(flags), "start")
	debug := append(slices.Clip(flags), "-debug", "start")
	path := options(t, &runtimeoptions.Options{TypeUrl: "x", ConfigPath: "/etc/x.toml"})
	body := options(t, &runtimeoptions.Options{ConfigBody: []byte("[vm]\n")})
	runc := options(t, &runcoptions.Options{IoUid: 7})
	params := &bootapi.BootstrapParams{InstanceID: "c1", Namespace: "k8s.io", ContainerdVersion: "2.4.2"}
	plain := &bootapi.BootstrapParams{InstanceID: "c1", Namespace: "k8s.io", ContainerdGrpcAddress: grpc, ContainerdTtrpcAddress: ttrpc}
	with := func(o *anypb.Any) *bootapi.BootstrapParams {
		p := proto.CloneOf(plain)
		p.Extensions = []*bootapi.Extension{{Value: o}}
		return p
	}
	verbose := proto.CloneOf(plain)
	verbose.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	for _, tt := range []struct {
		name  string
		args  []string
		input []byte
		want  *bootapi.BootstrapParams // nil for parameters
	}{
		{"1.6 to 2.2, ctr run", start, nil, plain},
		{"1.6 to 2.2, log level debug", debug, nil, verbose},
		{"1.6, ctr run --runtime-config-path", start, encode(t, path), with(path)},
		{"1.7 to 2.2, a table of options for the CRI", start, encode(t, body), with(body)},
		{"1.6, ctr run --uidmap", start, encode(t, runc), with(runc)},
		{"2.3 and later", start, encode(t, params), nil},
		{"2.3 and later, log level debug", debug, encode(t, params), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			command := ParseArgs(tt.args)
			if !command.Start {
				t.Fatalf("%q is no start command", tt.args)
			}
			got, err := Parse(command, ttrpc, tt.input)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestParseNeitherNor: what is neither parameters nor options is refused, because
// to ignore it would run something else than what was asked for.
func TestParseNeitherNor(t *testing.T) {
	command := Command{Namespace: "k8s.io", ID: "c1", Start: true}
	for name, tt := range map[string]struct {
		command Command
		input   []byte
		want    string
	}{
		"parameters of another container": {command, encode(t, &bootapi.BootstrapParams{InstanceID: "c2", Namespace: "k8s.io", ContainerdVersion: "2.4.2"}), "not those of this container"},
		"parameters of another namespace": {command, encode(t, &bootapi.BootstrapParams{InstanceID: "c1", Namespace: "moby", ContainerdVersion: "2.4.2"}), "not those of this container"},
		"text":                            {command, []byte("{\"version\":2}"), "neither parameters nor options"},
		"no namespace":                    {Command{ID: "c1"}, nil, "without -namespace"},
		"no id":                           {Command{Namespace: "k8s.io"}, nil, "without -namespace or -id"},
	} {
		got, err := Parse(tt.command, "", tt.input)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestParseArgs: only the start command is one.
func TestParseArgs(t *testing.T) {
	for _, args := range []string{
		"", "-v", "-info", "-namespace n -id c", "-namespace n -id c delete",
		"-namespace n -id c -bundle /b delete", "-info start", "-unknown start", "-namespace",
		"-namespace n -id c -address a -socket s -debug-socket d",
	} {
		if c := ParseArgs(strings.Fields(args)); c.Start {
			t.Errorf("%q is a start command", args)
		}
	}
	want := Command{Namespace: "n", ID: "c", Address: "/a", Debug: true, Start: true}
	if diff := cmp.Diff(want, ParseArgs(strings.Fields("--namespace=n -id c -address /a -publish-binary x -debug start"))); diff != "" {
		t.Error(diff)
	}
}
