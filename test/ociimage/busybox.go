package ociimage

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// BusyboxName is the reference of the image that [Busybox] makes.
const BusyboxName = "ccv2.test/busybox:latest"

// Busybox makes an image of a statically linked busybox with links for all its
// applets.
func Busybox(ctx context.Context, binary string) (Image, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return Image{}, fmt.Errorf("busybox image: %w", err)
	}
	if err := checkStatic(binary); err != nil {
		return Image{}, fmt.Errorf("busybox image: %s: %w", binary, err)
	}
	list, err := exec.CommandContext(ctx, binary, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("busybox image: list applets: %w", err)
	}
	files := map[string]File{
		"bin/busybox": {Data: data},
		"etc/passwd":  {Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		"etc/group":   {Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		"root":        {Dir: true, Mode: 0o700},
		"tmp":         {Dir: true, Mode: 0o1777},
	}
	for _, dir := range []string{"dev", "etc", "proc", "run", "sys", "var"} {
		files[dir] = File{Dir: true}
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			files["bin/"+applet] = File{Link: "busybox"}
		}
	}
	return Image{
		Name:  BusyboxName,
		Files: files,
		Config: v1.ImageConfig{
			Env: []string{"PATH=/bin", "HOME=/root"},
			Cmd: []string{"/bin/sh"},
		},
	}, nil
}

// checkStatic refuses a program that would need libraries in the container.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("is linked dynamically; use that of the package busybox-static")
		}
	}
	return nil
}
