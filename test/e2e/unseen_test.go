//go:build e2e

package e2e_test

import (
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestAccessTime: who reads with O_NOATIME, as backups do, leaves the time of the last access as it
// was, and all others change it.
func TestAccessTime(t *testing.T) {
	dir, again := empty(t)
	sameAsRunc(t, []string{"/bin/unseen.d/unseen", "/tmp", "/v"}, []string{
		"tmp small read unseen ok 10 accessed then: false", "tmp small read seen ok 10 accessed then: true",
		"v of 500 list unseen again ok 500 accessed then: false", "another user open EPERM",
	}, again, oci.WithMounts([]specs.Mount{bind(dir, "/v"), bind(testProgram(t, "unseen"), "/bin/unseen.d", "ro")}))
}
