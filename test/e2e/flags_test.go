//go:build e2e

package e2e_test

import (
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestFlags: those of chattr and lsattr, in the root file system and in a volume.
func TestFlags(t *testing.T) {
	dir, again := empty(t)
	mounts := []specs.Mount{bind(dir, "/v"), bind(testProgram(t, "attrs"), "/bin/attrs.d", "ro")}
	for _, place := range []string{"/tmp", "/v"} {
		t.Run(filepath.Base(place), func(t *testing.T) {
			name := filepath.Base(place)
			sameAsRunc(t, []string{"/bin/attrs.d/attrs", "flags", place}, []string{name + " immutable EPERM", name + " by another", name + " pipe ENOTTY", name + " remove ok"},
				again, oci.WithMounts(mounts), oci.WithNewPrivileges)
		})
	}
}

// TestFlagTools does the same with the programs that people use.
func TestFlagTools(t *testing.T) {
	dir, again := empty(t)
	const script = `exec 2>&1; export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for d in /v /root; do
cd $d; echo text > f; mkdir d
lsattr f; chattr +Ad f; lsattr f; chattr -d f; lsattr f; chattr -A f; chattr +S f; lsattr f; chattr -S f
chattr +i f; echo $?; chattr +a d; echo $?; lsattr -d d; chattr +dT d; lsattr -d d; lsattr -R . | sort
cp -a f g; lsattr g; tar c f g d | tar t; rm -r f g d; ls -A
done`
	sameAsRunc(t, []string{"/usr/bin/dash", "-c", script}, []string{"Operation not permitted"}, again, oci.WithMounts(append(userland(), bind(dir, "/v"))))
}
