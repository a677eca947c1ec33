//go:build e2e

package harness

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// Release is a containerd with the ctr that belongs to it.
type Release struct {
	Dir          string // of the two binaries
	Major, Minor int
}

func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }

// Releases in which a form of the configuration changed.
var (
	v20 = Release{Major: 2, Minor: 0}
	v22 = Release{Major: 2, Minor: 2}
	v23 = Release{Major: 2, Minor: 3}
)

// before reports whether r is older than another release.
func (r Release) before(o Release) bool {
	return cmp.Or(cmp.Compare(r.Major, o.Major), cmp.Compare(r.Minor, o.Minor)) < 0
}

// Releases are those in the directories of CCV2_CONTAINERDS, a list like PATH.
func Releases() ([]Release, error) {
	var all []Release
	for _, dir := range filepath.SplitList(os.Getenv("CCV2_CONTAINERDS")) {
		r, err := releaseIn(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// Usual is the release of tests that name none: that in CCV2_CONTAINERD, or the
// newest, which is beside the shim.
func Usual() (Release, error) {
	paths, err := Find()
	if err != nil {
		return Release{}, err
	}
	return releaseIn(cmp.Or(os.Getenv("CCV2_CONTAINERD"), paths.Bin))
}

// versionText finds the version in what `containerd --version` prints: the
// package, the version, and a revision.
var versionText = regexp.MustCompile(`^containerd \S+ v?(\d+)\.(\d+)\.`)

// releaseIn asks the containerd in a directory what it is.
func releaseIn(dir string) (Release, error) {
	out, err := exec.Command(filepath.Join(dir, "containerd"), "--version").Output() //nolint:noctx // it answers at once
	if err != nil {
		return Release{}, fmt.Errorf("which containerd is in %s: %w", dir, err)
	}
	found := versionText.FindSubmatch(out)
	if found == nil {
		return Release{}, fmt.Errorf("which containerd is in %s: it says %q", dir, out)
	}
	r := Release{Dir: dir}
	if r.Major, err = strconv.Atoi(string(found[1])); err != nil {
		return r, err
	}
	r.Minor, err = strconv.Atoi(string(found[2]))
	return r, err
}
