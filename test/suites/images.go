package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// recipe is what an image has on top of busybox.
type recipe struct {
	layers  []map[string]ociimage.File
	config  v1.Config // PATH is added
	volumes []string
}

func script(lines ...string) ociimage.File {
	return ociimage.File{Data: []byte("#!/bin/sh\n" + strings.Join(lines, "\n") + "\n")}
}

// pause ends when it is signalled, as the original does.
var pause = recipe{
	layers: []map[string]ociimage.File{{"pause": script("trap 'exit 0' TERM INT", "while :; do sleep 1000 & wait; done")}},
	config: v1.Config{Entrypoint: []string{"/pause"}},
}

// recipes has everything that the suites ask for, by its full name. Where a test
// needs only some programs of the original, they are made of busybox.
var recipes = map[string]recipe{
	"ghcr.io/containerd/busybox:1.36": {
		// Debian's nc, as process 1, does not end on SIGTERM.
		layers: []map[string]ociimage.File{{"bin/nc": script("trap 'exit 143' TERM", `busybox nc "$@" &`, "wait $!")}},
	},
	"registry.k8s.io/e2e-test-images/busybox:1.29-2": {},
	"registry.k8s.io/pause:3.6":                      pause,
	"registry.k8s.io/pause:3.10.2":                   pause,
	"ghcr.io/containerd/alpine:3.14.0": {
		layers: []map[string]ociimage.File{{"etc/os-release": {Mode: 0o644, Data: []byte("NAME=\"Alpine Linux\"\n")}, "bin/sh": {Link: "/bin/busybox"}}},
	},
	"ghcr.io/containerd/volume-copy-up:2.2": {
		layers: []map[string]ociimage.File{
			{"test_dir/test_file": {Mode: 0o644, Data: []byte("test_content\n")}},
			{"C:/weird_test_dir/weird_test_file": {Mode: 0o644, Data: []byte("test_content\n")}},
			{":colon_prefixed/colon_prefixed_file": {Mode: 0o644, Data: []byte("test_content\n")}},
		},
		volumes: []string{"/test_dir", "C:/weird_test_dir", "/:colon_prefixed"},
	},
	"ghcr.io/containerd/volume-ownership:2.1": {
		layers: []map[string]ociimage.File{{
			"test_dir":       {Dir: true, ID: 65534},
			"bin/bash":       script(`exec sh "$@"`),
			"usr/bin/passwd": {Mode: 0o4755, Data: []byte("a set-user-id bit")},
		}},
		volumes: []string{"/test_dir"},
	},
	"registry.k8s.io/e2e-test-images/resource-consumer:1.10": {
		layers: []map[string]ociimage.File{{"bin/stress": script("dd if=/dev/zero bs=125829120 count=1 | sleep 30")}},
		config: v1.Config{Entrypoint: []string{"sleep", "3600"}},
	},
	"ghcr.io/containerd/nginx:1.27.0": {
		layers: []map[string]ociimage.File{{"bin/nginx": script("echo start worker processes >/proc/self/fd/2", "sleep 3600")}},
		config: v1.Config{Entrypoint: []string{"nginx"}},
	},
}

// users and groups are those of the original busybox that tests name.
const (
	users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n" +
		"sys:x:3:3:sys:/dev:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	groups = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\nwheel:x:10:root\nwww-data:x:33:\nnobody:x:65534:\n"
)

// registries are the hosts of all images.
var registries = []string{"gcr.io", "ghcr.io", "k8s.gcr.io", "registry.k8s.io"}

// images makes all images of a suite.
func images(ctx context.Context, o options) (map[string]v1.Image, error) {
	busybox, recipes := filepath.Join(o.build, "busybox/bin/busybox"), recipes
	var err error
	if o.suite == critestName {
		busybox = suiteBusybox(o.build)
		if recipes, err = critestRecipes(busybox, suiteProgram(o.build)); err != nil {
			return nil, err
		}
	}
	base, err := ociimage.Busybox(ctx, busybox)
	if err != nil {
		return nil, err
	}
	base.Files["etc/passwd"] = ociimage.File{Mode: 0o644, Data: []byte(users)}
	base.Files["etc/group"] = ociimage.File{Mode: 0o644, Data: []byte(groups)}
	all := map[string]v1.Image{}
	for ref, r := range recipes {
		if all[ref], err = r.make(base.Files); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (r recipe) make(base map[string]ociimage.File) (v1.Image, error) {
	image := empty.Image
	for _, files := range append([]map[string]ociimage.File{base}, r.layers...) {
		data, err := ociimage.Layer(files)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", r.config
	file.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, r.config.Env...)
	if len(r.config.Entrypoint)+len(r.config.Cmd) == 0 {
		file.Config.Cmd = []string{"sh"}
	}
	for _, v := range r.volumes {
		if file.Config.Volumes == nil {
			file.Config.Volumes = map[string]struct{}{}
		}
		file.Config.Volumes[v] = struct{}{}
	}
	return mutate.ConfigFile(image, file)
}
