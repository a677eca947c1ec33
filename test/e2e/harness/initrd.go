//go:build e2e

package harness

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// Initrd writes an initial RAM disk whose only file is /init, a program of the
// host that needs no libraries, and returns its path.
func Initrd(tb testing.TB, path, program string) string {
	tb.Helper()
	init, err := os.ReadFile(program)
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	const executable, directory = 0o100755, 0o040755
	cpio(&b, "dev", directory, nil)
	cpio(&b, "init", executable, init)
	cpio(&b, "TRAILER!!!", 0, nil)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// WithShell writes an image that has a program as /bin/sh as well, and returns its path.
func WithShell(tb testing.TB, path, image, program string) string {
	tb.Helper()
	before, err := os.ReadFile(image)
	if err != nil {
		tb.Fatal(err)
	}
	shell, err := os.ReadFile(program)
	if err != nil {
		tb.Fatal(err)
	}
	b := bytes.NewBuffer(before) // the kernel unpacks one archive after the other
	pad(b)
	const executable, directory = 0o100755, 0o040755
	cpio(b, "bin", directory, nil)
	cpio(b, "bin/sh", executable, shell)
	cpio(b, "TRAILER!!!", 0, nil)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// cpio appends one member in the format newc.
func cpio(b *bytes.Buffer, name string, mode int, data []byte) {
	ino, uid, gid, links, mtime, devices, check := 0, 0, 0, 1, 0, 0, 0
	fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		ino, mode, uid, gid, links, mtime, len(data), devices, devices, devices, devices, len(name)+1, check)
	b.WriteString(name)
	b.WriteByte(0)
	pad(b)
	b.Write(data)
	pad(b)
}

// pad fills up to a multiple of four bytes.
func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
