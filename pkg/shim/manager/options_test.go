package manager

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

func TestSettingsOf(t *testing.T) {
	t.Chdir(t.TempDir())
	params := func(options proto.Message) *bootapi.BootstrapParams {
		p := &bootapi.BootstrapParams{}
		if options == nil {
			return p
		}
		value, err := typeurl.MarshalAnyToProto(options)
		if err != nil {
			t.Fatal(err)
		}
		p.Extensions = append(p.Extensions, &bootapi.Extension{Value: value})
		return p
	}
	for _, tt := range []struct {
		options proto.Message
		want    settings
	}{
		{nil, settings{}},
		{&runtimeoptions.Options{}, settings{}},
		{&runtimeoptions.Options{ConfigPath: "/etc/x"}, settings{config: "/etc/x"}},
		{&runcoptions.Options{}, settings{}},
		{&runcoptions.Options{IoUid: 1, IoGid: 2}, settings{}},
		{&runcoptions.Options{IoUid: 1, ShimCgroup: "/shims"}, settings{shimCgroup: "/shims"}},
	} {
		if got, err := settingsOf(params(tt.options)); got != tt.want || err != nil {
			t.Errorf("%v: %+v, %v", tt.options, got, err)
		}
	}
	got, err := settingsOf(params(&runtimeoptions.Options{ConfigBody: []byte("text")}))
	if err != nil || !filepath.IsAbs(got.config) {
		t.Fatalf("body: %+v, %v", got, err)
	}
	if b, err := os.ReadFile(got.config); err != nil || string(b) != "text" {
		t.Errorf("body: %q, %v", b, err)
	}
	_, err = settingsOf(params(&runcoptions.Options{IoUid: 1, ShimCgroup: "/shims", Root: "/run/x", BinaryName: "runsc"}))
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "binary_name, root of containerd.runc.v1.Options are for another runtime") {
		t.Errorf("options of runc: %v", err)
	}
	env := settings{config: "/etc/x", shimCgroup: "/shims"}.env()
	if !slices.Contains(env, EnvShimCgroup+"=/shims") || !slices.Contains(env, config.EnvPath+"=/etc/x") {
		t.Errorf("environment %q", env)
	}
}
