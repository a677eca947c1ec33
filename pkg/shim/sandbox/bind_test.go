package sandbox

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

func TestBindOf(t *testing.T) {
	for _, tt := range []struct {
		source  string
		options []string
		want    share.Bind
	}{
		{"/a", nil, share.Bind{Source: "/a", Deep: true, Follow: true}},
		{"a/b", []string{"rbind", "rprivate", "ro"}, share.Bind{Source: "/bundle/a/b", Access: share.WriteBelow, Deep: true}},
		{"/a", []string{"bind"}, share.Bind{Source: "/a", Follow: true}},
		{"/a", []string{"bind", "rslave", "rro"}, share.Bind{Source: "/a", Access: share.WriteNothing, Follow: true}},
		{"/a", []string{"private", "rshared", "bind", "rbind"}, share.Bind{Source: "/a", Deep: true, Follow: true}},
	} {
		if got := bindOf(specs.Mount{Source: tt.source, Options: tt.options}, "/bundle"); got != tt.want {
			t.Errorf("%s %v: %+v, want %+v", tt.source, tt.options, got, tt.want)
		}
	}
}
