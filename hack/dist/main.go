// Command dist makes the bundle: one archive with all that ccv2 needs on a host, QEMU
// and virtiofsd with the libraries that they are linked with among it. It runs on any
// Linux of this architecture, whatever C library that has, wherever it is unpacked. The
// same tree is an OCI image as well, which installs it on a host that is mounted at /host.
//
//	dist -build build -version 1.2.3 -time 1767225600 -out build/dist
//
// The same parts give the same bytes: names are sorted, and all times are -time, which
// is that of the commit.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

func main() {
	var b bundle
	seconds := flag.Int64("time", 0, "time of all files, in seconds since 1970")
	out := flag.String("out", "", "directory of the archives")
	flag.StringVar(&b.build, "build", "build", "directory of what make has built")
	flag.StringVar(&b.version, "version", "devel", "version in the names")
	flag.StringVar(&b.qemu, "qemu", "/usr/bin/qemu-system-x86_64", "the distribution's QEMU")
	flag.Parse()
	b.time = time.Unix(*seconds, 0).UTC()
	if err := run(&b, *out); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// validVersion is what the tag of an image may look like, and the name of a directory.
var validVersion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$`)

func run(b *bundle, out string) error {
	if out == "" || b.time.Unix() == 0 {
		return errors.New("-out and -time are needed")
	}
	if !validVersion.MatchString(b.version) {
		return fmt.Errorf("version %q cannot be the tag of an image: letters, digits, dots, hyphens and underscores can", b.version)
	}
	if err := b.collect(); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for ending, write := range map[string]func(io.Writer) error{".tar": b.write, ".oci.tar": b.writeImage} {
		path := filepath.Join(out, b.name()+ending)
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	fmt.Println(filepath.Join(out, b.name()+".tar"))
	return nil
}
