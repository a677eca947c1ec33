//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
)

// twins are volumes of two file systems whose files have equal inode numbers.
func twins(t *testing.T) (opts oci.SpecOpts, fresh func(*testing.T)) {
	root := t.TempDir()
	mounts := userland()
	var places []string
	for _, name := range []string{"v1", "v2", "data"} {
		place := filepath.Join(root, name)
		if err := os.Mkdir(place, 0o755); err != nil {
			t.Fatal(err)
		}
		places = append(places, place)
		mounts = append(mounts, bind(place, "/"+name))
	}
	below := filepath.Join(root, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	places = append(places, below)
	mounts = append(mounts, bind(below, "/data/below"))
	unmount := func() {
		for _, place := range places {
			for unix.Unmount(place, unix.MNT_DETACH) == nil { //nolint:revive // until there is none
			}
		}
	}
	t.Cleanup(unmount)
	return oci.WithMounts(mounts), func(t *testing.T) {
		t.Helper()
		unmount()
		for _, place := range places {
			if err := unix.Mount("tmpfs", place, "tmpfs", 0, "mode=755,inode64"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(place, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			text := []byte("of " + filepath.Base(place) + "\n")
			for _, name := range []string{"f", "d/g"} {
				if err := os.WriteFile(filepath.Join(place, name), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.Mkdir(filepath.Join(places[2], "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		a, b := inode(t, filepath.Join(places[0], "f")), inode(t, filepath.Join(places[1], "f"))
		if a != b {
			t.Fatalf("inode numbers %d and %d, which shows nothing", a, b)
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestEqualInodes: files of two file systems of the host are two files, for programs
// that compare device and inode numbers.
func TestEqualInodes(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"Copy":    {`cp /v1/f /v2/f && cat /v2/f; cp -r /v1/d /v2/ && cat /v2/d/g; cp -a /v1/. /v2/new && cat /v2/new/d/g`, "of v1\n"},
		"Tar":     {`tar -C / -cf /a.tar v1 v2 && mkdir -p /out && tar -C /out -xf /a.tar && cat /out/v1/f /out/v2/f /out/v2/d/g; tar tvf /a.tar | grep -c link`, "of v1\nof v2\n"},
		"Move":    {`mv /v1/f /v2/f && cat /v2/f; ls /v1; mv /v2/d /v1/d2 && cat /v1/d2/g; ls /v2`, "of v1\n"},
		"Compare": {`diff -r /v1 /v2; cmp /v1/f /v2/f; [ /v1/f -ef /v2/f ] && echo one; [ /v1 -ef /v2 ] && echo one; [ /v1/f -ef /v1/../v1/f ] && echo itself`, "itself\n"},
		"Usage":   {`du -a /v1 /v2 | sort; du -x /data; du -c /v1/f /v2/f | tail -n 1`, "total"},
		"Find":    {`find /data -xdev | sort; find / -xdev -maxdepth 2 \( -path '/v?/*' -o -path '/data/*' \); find /v1 -samefile /v2/f; find /v1 /v2 -samefile /v1/f`, "/v1/f\n"},
		"Point":   {`for d in / /v1 /v2 /data /data/below /v1/d; do mountpoint $d; done; [ "$(stat -c %d /v1)" = "$(stat -c %d /v2)" ] && echo one; stat -c %d /v1 /v1/d /v1/f | sort -u | wc -l`, "is a mountpoint"},
		"Python": {`python3 -c 'import os, filecmp, shutil
print([os.path.ismount(d) for d in ("/", "/v1", "/v2", "/data/below", "/v1/d")], os.path.samefile("/v1/f", "/v2/f"), filecmp.cmp("/v1/f", "/v2/f", shallow=False))
shutil.copy("/v1/f", "/v2/f"); shutil.move("/v1/d", "/v2/moved"); print(open("/v2/f").read(), os.listdir("/v1"), os.listdir("/v2/moved"))'`, "[True, True, True, True, False] False False"},
		"Remove": {`rm -rf --one-file-system /data 2>&1; find /data | sort; cat /data/below/f`, "of below\n"},
		"Link":   {`ln /v1/f /v2/link 2>&1; ln /v1/f /v1/link && stat -c '%h' /v1/f /v2/f; tar -C /v1 -cf - . | tar tvf - | grep -c 'link to'`, "2\n1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			opts, fresh := twins(t)
			// A shell that has no such commands itself, as that of the image has.
			const settings = "export PATH=/usr/bin:/usr/sbin:/bin LC_ALL=C; "
			sameAsRunc(t, []string{"/usr/bin/dash", "-c", settings + test.script + "\n:"}, []string{test.want}, fresh, opts)
		})
	}
}
