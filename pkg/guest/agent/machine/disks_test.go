package machine

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindDisk(t *testing.T) {
	dir := t.TempDir()
	for name, serial := range map[string]string{"vda": "first\n", "vdb": "second\n", "sda": "third\n"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "serial"), []byte(serial), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "vdc"), 0o700); err != nil { // is just going
		t.Fatal(err)
	}
	for serial, want := range map[string]string{"first": "vda", "second": "vdb", "third": "", "fourth": ""} {
		if got, err := findDisk(dir, serial); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", serial, got, err, want)
		}
	}
}

// TestOpenDisk: a node that is not there, or cannot be opened yet, is waited for.
func TestOpenDisk(t *testing.T) {
	dir := t.TempDir()
	if _, _, ok, err := openDisk(filepath.Join(dir, "vda")); ok || err != nil {
		t.Errorf("not there: %v, %v", ok, err)
	}
	sock, err := net.Listen("unix", filepath.Join(dir, "vdb")) // open(2) says ENXIO, as with a new disk
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	if _, _, ok, err := openDisk(sock.Addr().String()); ok || err != nil {
		t.Errorf("not yet: %v, %v", ok, err)
	}
	if _, _, _, err := openDisk(dir + strings.Repeat("/vdc", 2000)); err == nil {
		t.Error("a path that is too long is no error")
	}
	major, minor, ok, err := openDisk("/dev/null")
	if major != 1 || minor != 3 || !ok || err != nil {
		t.Errorf("/dev/null: %d:%d, %v, %v", major, minor, ok, err)
	}
}
