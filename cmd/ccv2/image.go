package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/image"
)

// stringList is a flag that may be given more than once.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func runImage(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || args[0] != "build" {
		return errors.New("usage: ccv2 image build [--kernel FILE] [--modules DIR] [--agent FILE] [--runtime FILE] [--root DIR]... [--add SOURCE:DEST]... [--out DIR]")
	}
	opts, err := imageOptions(args[1:], stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := image.Build(opts)
	if err != nil {
		return err
	}
	if m.KernelFormat == image.FormatBzImage {
		fmt.Fprintf(stderr, "ccv2 image: the compression of %s is not supported (xz is, where xz-utils is installed); it was copied as a bzImage, which boots slower\n", opts.Kernel)
	}
	for _, f := range m.Outputs {
		fmt.Fprintf(stdout, "%s  %s\n", f.SHA256, filepath.Join(opts.Out, f.Path))
	}
	return nil
}

func imageOptions(args []string, stderr io.Writer) (image.Options, error) {
	var opts image.Options
	var roots, adds stringList
	fs := flag.NewFlagSet("ccv2 image build", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&opts.Kernel, "kernel", "", "bzImage or ELF kernel (default: the newest /boot/vmlinuz-*)")
	fs.StringVar(&opts.Modules, "modules", "", "modules of the kernel (default: lib/modules/RELEASE or usr/lib/modules/RELEASE beside the kernel's directory)")
	fs.StringVar(&opts.Agent, "agent", "", "ccv2-agent binary (default: beside this program)")
	fs.StringVar(&opts.Runtime, "runtime", "/usr/bin/crun", "OCI runtime binary")
	fs.Var(&roots, "root", "root of unpacked packages to search for shared libraries before the host; repeatable")
	fs.Var(&adds, "add", "SOURCE:DEST, copy a file or directory into the image; repeatable")
	fs.StringVar(&opts.Out, "out", ".", "directory for vmlinux, initrd.img and manifest.json")
	if err := fs.Parse(args); err != nil {
		return opts, err
	}
	if fs.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	opts.Roots = roots
	for _, add := range adds {
		source, dest, ok := strings.Cut(add, ":")
		if !ok || !strings.HasPrefix(dest, "/") {
			return opts, fmt.Errorf("--add %q: want SOURCE:/absolute/destination", add)
		}
		opts.Add = append(opts.Add, image.Addition{Source: source, Dest: dest})
	}
	err := imageDefaults(&opts)
	return opts, err
}

// imageDefaults fills in what depends on the machine.
func imageDefaults(opts *image.Options) error {
	if opts.Kernel == "" {
		kernels, err := filepath.Glob("/boot/vmlinuz-*")
		if err != nil || len(kernels) == 0 {
			return errors.New("no kernel in /boot; name one with --kernel")
		}
		opts.Kernel = slices.MaxFunc(kernels, byModTime)
	}
	if opts.Modules == "" {
		_, release, ok := strings.Cut(filepath.Base(opts.Kernel), "vmlinuz-")
		if !ok {
			return fmt.Errorf("cannot derive the release from the name %s; name the module directory with --modules", opts.Kernel)
		}
		opts.Modules = modulesOf(opts.Kernel, release)
	}
	if opts.Agent == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		opts.Agent = filepath.Join(filepath.Dir(self), "ccv2-agent")
	}
	return nil
}

// modulesOf is the directory of a kernel's modules, as its package has it: below
// lib, or below usr/lib where the distribution has merged the two.
func modulesOf(kernel, release string) string {
	root := filepath.Join(filepath.Dir(kernel), "..")
	merged := filepath.Join(root, "usr/lib/modules", release)
	if _, err := os.Stat(merged); err == nil {
		return merged
	}
	return filepath.Join(root, "lib/modules", release)
}

// byModTime compares files by age; one that cannot be read is oldest.
func byModTime(a, b string) int {
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	switch {
	case aerr != nil:
		return -1
	case berr != nil:
		return 1
	}
	return ai.ModTime().Compare(bi.ModTime())
}
