// Package ociimage writes small OCI images: for the demonstration and for
// tests, which must not depend on a registry. The same input gives the same
// bytes.
package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is one member of an image's root file system. It is a directory when
// Dir is set, a symbolic link when Link is not "", else a regular file.
type File struct {
	Dir  bool
	Link string
	Mode int64 // permissions; 0 means 0755
	ID   int   // owner, user and group
	Data []byte
}

// Image is an image of one layer.
type Image struct {
	Name   string          // full reference, such as "ccv2.test/busybox:latest"
	Files  map[string]File // by path; parent directories are made
	Config v1.ImageConfig
}

// nameAnnotation is where containerd's import finds the name.
const nameAnnotation = "io.containerd.image.name"

// Write writes the image as a tar archive in OCI layout.
func Write(w io.Writer, img Image) error {
	layer, err := Layer(img.Files)
	if err != nil {
		return fmt.Errorf("write image %s: layer: %w", img.Name, err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(layer); err != nil {
		return fmt.Errorf("write image %s: layer: %w", img.Name, err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write image %s: layer: %w", img.Name, err)
	}
	files, err := layout(img, digest.FromBytes(layer), packed.Bytes())
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	if err := writeTar(w, files); err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	return nil
}

// layout makes the members of the archive.
func layout(img Image, diffID digest.Digest, layer []byte) (map[string]File, error) {
	files := map[string]File{}
	blob := func(mediaType string, data []byte) v1.Descriptor {
		sum := sha256.Sum256(data)
		name := hex.EncodeToString(sum[:])
		files["blobs/sha256/"+name] = File{Data: data, Mode: 0o644}
		return v1.Descriptor{MediaType: mediaType, Digest: digest.NewDigestFromEncoded(digest.SHA256, name), Size: int64(len(data))}
	}
	versioned := specs.Versioned{SchemaVersion: 2}
	config, err := json.Marshal(v1.Image{
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config:   img.Config,
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		Versioned: versioned, MediaType: v1.MediaTypeImageManifest,
		Config: blob(v1.MediaTypeImageConfig, config),
		Layers: []v1.Descriptor{blob(v1.MediaTypeImageLayerGzip, layer)},
	})
	if err != nil {
		return nil, err
	}
	entry := blob(v1.MediaTypeImageManifest, manifest)
	entry.Annotations = map[string]string{nameAnnotation: img.Name}
	entry.Platform = &v1.Platform{Architecture: "amd64", OS: "linux"}
	index, err := json.Marshal(v1.Index{Versioned: versioned, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{entry}})
	if err != nil {
		return nil, err
	}
	files[v1.ImageIndexFile] = File{Data: index, Mode: 0o644}
	files[v1.ImageLayoutFile] = File{Data: []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`), Mode: 0o644}
	return files, nil
}

// Layer makes an uncompressed layer, with all parent directories.
func Layer(files map[string]File) ([]byte, error) {
	all := map[string]File{}
	for name, f := range files {
		name = strings.Trim(path.Clean("/"+name), "/")
		if name == "" {
			return nil, fmt.Errorf("a file has no name")
		}
		all[name] = f
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = File{Dir: true}
			}
		}
	}
	for name, f := range files { // parents must not hide what was asked for
		all[strings.Trim(path.Clean("/"+name), "/")] = f
	}
	var b bytes.Buffer
	if err := writeTar(&b, all); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeTar writes the files in the order of their names, so directories come first.
func writeTar(w io.Writer, files map[string]File) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		f := files[name]
		h := &tar.Header{Name: name, Mode: f.Mode, Uid: f.ID, Gid: f.ID, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		switch {
		case f.Dir:
			h.Typeflag, h.Name, h.Size = tar.TypeDir, name+"/", 0
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size, h.Mode = tar.TypeSymlink, f.Link, 0, 0o777
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if h.Size == 0 {
			continue
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}
