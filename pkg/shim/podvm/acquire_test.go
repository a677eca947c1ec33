package podvm

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

// TestCgroupOfOthers: its processes would be killed with the sandbox.
func TestCgroupOfOthers(t *testing.T) {
	if err := mustBeEmpty("/ccv2-test-nothing/here"); err != nil {
		t.Skipf("no cgroups: %v", err)
	}
	if err := mustBeEmpty("/"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("a cgroup with processes was taken: %v", err)
	}
}
