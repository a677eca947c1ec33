package ociimage_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
)

// unpack reads an archive into memory, and the names in their order.
func unpack(t *testing.T, r io.Reader) (map[string]*tar.Header, map[string][]byte, []string) {
	t.Helper()
	headers, data := map[string]*tar.Header{}, map[string][]byte{}
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers, data, names
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		headers[h.Name], data[h.Name] = h, b
		names = append(names, h.Name)
	}
}

// read decodes a blob and checks its digest and size.
func read(t *testing.T, blobs map[string][]byte, d v1.Descriptor) []byte {
	t.Helper()
	b, ok := blobs["blobs/sha256/"+d.Digest.Encoded()]
	if !ok {
		t.Fatalf("blob %s is missing", d.Digest)
	}
	if got := digest.FromBytes(b); got != d.Digest || int64(len(b)) != d.Size {
		t.Fatalf("blob %s has digest %s and %d bytes, want %d", d.Digest, got, len(b), d.Size)
	}
	return b
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func write(t *testing.T, img ociimage.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := ociimage.Write(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWrite(t *testing.T) {
	img := ociimage.Image{
		Name: "ccv2.test/x:1",
		Files: map[string]ociimage.File{
			"/a/b/file": {Data: []byte("data"), Mode: 0o644},
			"a":         {Dir: true, Mode: 0o700},
			"a/link":    {Link: "b/file"},
		},
		Config: v1.ImageConfig{Cmd: []string{"/a/b/file"}},
	}
	archive := write(t, img)
	_, blobs, _ := unpack(t, bytes.NewReader(archive))
	index := decode[v1.Index](t, blobs["index.json"])
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != img.Name {
		t.Errorf("name %q, want %q", got, img.Name)
	}
	manifest := decode[v1.Manifest](t, read(t, blobs, index.Manifests[0]))
	config := decode[v1.Image](t, read(t, blobs, manifest.Config))
	if diff := cmp.Diff(img.Config, config.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	z, err := gzip.NewReader(bytes.NewReader(read(t, blobs, manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest.FromBytes(layer); got != config.RootFS.DiffIDs[0] {
		t.Errorf("diff id %s, layer has %s", config.RootFS.DiffIDs[0], got)
	}
	headers, data, names := unpack(t, bytes.NewReader(layer))
	if diff := cmp.Diff([]string{"a/", "a/b/", "a/b/file", "a/link"}, names); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if headers["a/"].Mode != 0o700 || headers["a/b/"].Mode != 0o755 || headers["a/link"].Linkname != "b/file" || string(data["a/b/file"]) != "data" {
		t.Errorf("members: %+v, %q", headers, data)
	}
	if !bytes.Equal(archive, write(t, img)) {
		t.Error("the same image was written differently")
	}
}

func TestBusybox(t *testing.T) {
	binary, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox")
	}
	img, err := ociimage.Busybox(t.Context(), binary)
	if err != nil {
		t.Skip(err) // a dynamic one
	}
	if img.Files["bin/sh"].Link != "busybox" || len(img.Files["bin/busybox"].Data) == 0 {
		t.Error("no shell in the image")
	}
}

func TestBusyboxRefusesDynamic(t *testing.T) {
	_, err := ociimage.Busybox(t.Context(), "/bin/ls")
	if err == nil || !strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("got %v, want an error that names the package", err)
	}
}
