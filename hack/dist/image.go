package main

import (
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
)

// writeImage writes the tree as an OCI image, in a tar archive that `ctr images import`
// and `docker load` read.
func (b *bundle) writeImage(w io.Writer) error {
	files := make(map[string]ociimage.File, len(b.files))
	for name, f := range b.files {
		data, err := f.read()
		if err != nil {
			return err
		}
		files["ccv2/"+name] = ociimage.File{Link: f.link, Mode: f.mode, Data: data}
	}
	return ociimage.Write(w, ociimage.Image{
		Name: "ccv2.io/ccv2:" + b.version, Files: files,
		Config: v1.ImageConfig{
			Entrypoint: []string{"/ccv2/bin/ccv2"}, Cmd: []string{"install", "-root", "/host"},
			Labels: map[string]string{v1.AnnotationVersion: b.version, v1.AnnotationLicenses: "Apache-2.0 AND GPL-2.0-only AND LGPL-2.1-or-later"},
		},
	})
}
