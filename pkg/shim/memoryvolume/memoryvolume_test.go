package memoryvolume

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// mount mounts something on a new directory until the test has ended.
func mount(t *testing.T, source, target, kind string, flags uintptr, options string) string {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return target
}

// TestOf has the directories of a kubelet.
func TestOf(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	root := t.TempDir()
	kubelet := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, kubelet); err != nil {
		t.Fatal(err)
	}
	pod := filepath.Join(kubelet, "pods/uid")
	volume := mount(t, "tmpfs", pod+"/volumes/kubernetes.io~empty-dir/v", "tmpfs", 0, "size=8m,mode=2770,uid=12,gid=34")
	for _, dir := range []string{volume + "/a/b", pod + "/volumes/kubernetes.io~empty-dir/disk/a"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	part := mount(t, volume+"/a/b", pod+"/volume-subpaths/v/c/0", "", unix.MS_BIND, "")
	ofDisk := mount(t, filepath.Dir(volume)+"/disk/a", pod+"/volume-subpaths/disk/c/0", "", unix.MS_BIND, "")
	secret := mount(t, "tmpfs", pod+"/volumes/kubernetes.io~secret/v", "tmpfs", 0, "")
	other := mount(t, "tmpfs", kubelet+"/pods/other/volumes/kubernetes.io~empty-dir/v", "tmpfs", 0, "")
	ofOther := mount(t, other, pod+"/volume-subpaths/v/c/1", "", unix.MS_BIND, "")
	want := hyperstart.MemoryVolume{Name: "v", Size: 8 << 20, Mode: 0o2770, UID: 12, GID: 34}
	for name, test := range map[string]struct {
		bind  share.Bind
		below string
		ok    bool
	}{
		"volume":                  {share.Bind{Source: volume, Pod: "uid"}, "", true},
		"read-only":               {share.Bind{Source: volume + "/", Pod: "uid", Access: share.WriteNothing, Follow: true}, "", true},
		"directory":               {share.Bind{Source: volume + "/a", Pod: "uid"}, "a", true},
		"part":                    {share.Bind{Source: part, Pod: "uid"}, "a/b", true},
		"on the disk":             {share.Bind{Source: filepath.Dir(volume) + "/disk", Pod: "uid"}, "", false},
		"part on the disk":        {share.Bind{Source: ofDisk, Pod: "uid"}, "", false},
		"another kind":            {share.Bind{Source: secret, Pod: "uid"}, "", false},
		"of another pod":          {share.Bind{Source: other, Pod: "uid"}, "", false},
		"part of another pod's":   {share.Bind{Source: ofOther, Pod: "uid"}, "", false},
		"without a pod":           {share.Bind{Source: volume}, "", false},
		"no uid":                  {share.Bind{Source: volume, Pod: "../pods/uid"}, "", false},
		"of a user namespace":     {share.Bind{Source: volume, Pod: "uid", IDs: share.IDMap{UIDs: "0:1:2"}}, "", false},
		"not there":               {share.Bind{Source: volume + "/x", Pod: "uid"}, "", false},
		"what all volumes are in": {share.Bind{Source: filepath.Dir(volume), Pod: "uid"}, "", false},
	} {
		got, below, ok, err := Of(test.bind)
		if err != nil || ok != test.ok || below != test.below || ok && got != want {
			t.Errorf("%s: %+v, %q, %v, %v", name, got, below, ok, err)
		}
	}
}
