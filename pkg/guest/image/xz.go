package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

var errNoXZ = errors.New("xz is not installed (Debian: xz-utils)")

// xzMagic begins every .xz file.
var xzMagic = []byte("\xfd7zXZ\x00")

// unxz unpacks the first stream of data with the xz program. Distributions use
// xz with a filter for x86 code, which no maintained Go package has. The error
// is errNoXZ where the program is missing.
func unxz(data []byte) ([]byte, error) {
	program, err := exec.LookPath("xz")
	if err != nil {
		return nil, errNoXZ
	}
	var stderr strings.Builder
	// Behind the stream of a kernel's payload is the unpacked size.
	cmd := exec.CommandContext(context.Background(), program, "--decompress", "--stdout", "--single-stream")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
