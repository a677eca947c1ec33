// Command mkimage writes an image of one layer: the busybox that the
// demonstration runs, or a directory.
//
//	mkimage BUSYBOX OUTPUT.tar
//	mkimage -name REFERENCE [-entrypoint PATH] [-cmd WORD] [-user ID] DIRECTORY OUTPUT.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	name := flags.String("name", "", "the image's reference; what it is made of is then a directory")
	config := v1.ImageConfig{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	flags.Func("entrypoint", "the program that it runs", func(word string) error {
		config.Entrypoint = []string{word}
		return nil
	})
	flags.Func("cmd", "its argument, or the program", func(word string) error {
		config.Cmd = []string{word}
		return nil
	})
	flags.StringVar(&config.User, "user", "", "whom it runs as")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("usage: mkimage [-name REFERENCE [-entrypoint PATH] [-cmd WORD] [-user ID]] BUSYBOX-OR-DIRECTORY OUTPUT.tar")
	}
	source, output := flags.Arg(0), flags.Arg(1)
	img, err := ociimage.Busybox(ctx, source)
	if *name != "" {
		img, err = directory(source, *name, config)
	}
	if err != nil {
		return err
	}
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	return errors.Join(ociimage.Write(f, img), f.Close())
}

// directory makes an image of a directory's files, all of them root's.
func directory(dir, name string, config v1.ImageConfig) (ociimage.Image, error) {
	img := ociimage.Image{Name: name, Files: map[string]ociimage.File{}, Config: config}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		img.Files[rel], err = file(path, entry)
		return err
	})
	return img, err
}

func file(path string, entry fs.DirEntry) (ociimage.File, error) {
	info, err := entry.Info()
	if err != nil {
		return ociimage.File{}, err
	}
	mode := int64(info.Mode().Perm())
	for bit, number := range map[fs.FileMode]int64{fs.ModeSticky: 0o1000, fs.ModeSetgid: 0o2000, fs.ModeSetuid: 0o4000} {
		if info.Mode()&bit != 0 {
			mode |= number
		}
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return ociimage.File{Dir: true, Mode: mode}, nil
	case fs.ModeSymlink:
		link, err := os.Readlink(path)
		return ociimage.File{Link: link}, err
	case 0:
		data, err := os.ReadFile(path)
		return ociimage.File{Data: data, Mode: mode}, err
	default:
		return ociimage.File{}, fmt.Errorf("%s is neither a file nor a directory nor a link", path)
	}
}
