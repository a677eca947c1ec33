package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWrite: names are sorted, directories come first, and nothing tells when or by
// whom it was made.
func TestWrite(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bundle{version: "1", time: time.Unix(1700000000, 0), files: map[string]file{
		"z": {data: []byte("z"), mode: 0o644}, "a/b/c": {source: source, mode: 0o755}, "a/link": {link: "../z"},
	}}
	if err := b.sum(); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := errors.Join(b.write(&first), b.write(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same files differ")
	}
	var got []string
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(b.time) || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %v, %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		got = append(got, strings.TrimPrefix(h.Name, "ccv2-1-linux-amd64/")+h.Linkname)
	}
	if diff := cmp.Diff([]string{"", "SHA256SUMS", "a/", "a/b/", "a/b/c", "a/link../z", "z"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWriteImage: the image has the same files, below a directory of its own.
func TestWriteImage(t *testing.T) {
	b := &bundle{version: "1", files: map[string]file{"bin/x": {data: []byte("x"), mode: 0o755}, "bin/y": {link: "x"}}}
	var out, again bytes.Buffer
	if err := errors.Join(b.writeImage(&out), b.writeImage(&again)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Error("two images of the same files differ")
	}
	for _, want := range []string{`"ccv2.io/ccv2:1"`, `"Entrypoint":["/ccv2/bin/ccv2"]`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the image has no %s", want)
		}
	}
}

// TestDistinct: the order of parts is that of all that is said of them, whatever the order
// in which they are found.
func TestDistinct(t *testing.T) {
	one, two, three := component{Name: "a", Version: "1", Origin: "x"}, component{Name: "a", Version: "1", Origin: "y"}, component{Name: "a", Version: "2", Origin: "x"}
	for _, found := range [][]component{{one, two, three, one}, {two, one, one, three}, {three, two, one}} {
		if diff := cmp.Diff([]component{one, two, three}, distinct(found)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestManifests: those of a bundle are for its own image.
func TestManifests(t *testing.T) {
	t.Chdir("../..")
	b := &bundle{version: "1.2-3", files: make(map[string]file)}
	if err := b.addManifests("deploy"); err != nil {
		t.Fatal(err)
	}
	if text := string(b.files["deploy/base/kustomization.yaml"].data); !strings.Contains(text, "\n    newTag: 1.2-3\n") {
		t.Errorf("%s", text)
	}
}

// TestVersion: what cannot be the tag of the image is refused, before anything is made.
func TestVersion(t *testing.T) {
	for _, version := range []string{"", "1.0+dirty", "1.0~rc1", "../1", strings.Repeat("1", 129)} {
		b := &bundle{version: version, time: time.Unix(1, 0)}
		if err := run(b, t.TempDir()); err == nil || !strings.Contains(err.Error(), "cannot be the tag of an image") {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// TestClosure: what the loader lists for a program is found, and no more.
func TestClosure(t *testing.T) {
	program, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	loader, libraries, err := closure([]string{program})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(filepath.Base(loader), "ld-linux") {
		t.Errorf("the loader is %s", loader)
	}
	out, err := exec.CommandContext(t.Context(), loader, "--list", program).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for name := range libraries {
		if !strings.Contains(string(out), name) {
			t.Errorf("%s is not in what the loader lists:\n%s", name, out)
		}
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), " => "); ok && libraries[filepath.Base(name)] == "" {
			t.Errorf("%s is missing", name)
		}
	}
	if _, _, err := closure([]string{"/etc/hostname"}); err == nil {
		t.Error("a text has libraries")
	}
	if _, err := library("no-such.so"); err == nil || !strings.Contains(err.Error(), "no-such.so is not installed") {
		t.Error(err)
	}
}
