package virtiofsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/containerd/errdefs"
)

// Version says which server a binary is.
type Version struct {
	Line   string // what it says of itself
	Legacy bool   // the one in C, part of QEMU up to 7.2
	Own    bool   // has [Options].OwnMounts, as the one that is built here
}

// Probe asks binary for its version. The two families speak of themselves as
// "virtiofsd version 7.2.22 (…)" and "virtiofsd 1.10.0". Classes of errors are
// errdefs.ErrNotFound for a missing binary and ErrInvalidArgument for one that is
// something else.
func Probe(ctx context.Context, binary string) (Version, error) {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	v := Version{Line: line, Legacy: strings.HasPrefix(line, "virtiofsd version "), Own: strings.HasSuffix(line, "+ccv2")}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Version{}, fmt.Errorf("%s: %w; install virtiofsd or set [share] virtiofsd", binary, errdefs.ErrNotFound)
	case err != nil:
		return Version{}, fmt.Errorf("%s --version: %w", binary, err)
	case !strings.HasPrefix(line, "virtiofsd "):
		return Version{}, fmt.Errorf("%s: not a virtiofsd, it calls itself %q: %w", binary, line, errdefs.ErrInvalidArgument)
	}
	return v, nil
}
