package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestClassify(t *testing.T) {
	for msg, want := range map[string]uint8{
		"executable file `nope` not found in $PATH: No such file or directory":          127,
		"executable file `/bin/nope` not found: No such file or directory":              127,
		"open executable: Permission denied":                                            126,
		"the path `/bin/x` exists but it is not executable: permission denied":          126, // crun 1.21
		"the path `/bin` is not a regular file":                                         126,
		"cannot open `/bin/sh/x`: Not a directory":                                      126,
		"exec /bin/x: exec format error":                                                126,
		`exec: "nope": executable file not found in $PATH`:                              127,
		`unable to start container process: exec: "/x": permission denied`:              126,
		`exec: "/nope": stat /nope: no such file or directory`:                          127,
		"mount `proc` to `proc`: Operation not permitted":                               0,
		"open `/run/ccv2/shared/x/rootfs`: No such file or directory":                   0,
		"container `x` does not exist":                                                  0,
		"cannot set memory+swap limit: open memory.swap.max: No such file or directory": 0,
	} {
		if _, got := classify(msg); got != want {
			t.Errorf("%s: got %d, want %d", msg, got, want)
		}
	}
}

func TestReason(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	content := `{"msg":"old","level":"error"}` + "\nnot json\n" + `{"msg":"executable file ` + "`x`" + ` not found","level":"error"}` + "\n" + `{"msg":"w","level":"warning"}` + "\n"
	if err := os.WriteFile(log, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	err := nameProgram(reason(log, errors.New("did not terminate successfully")), "x")
	if err.Error() != "executable file `x` not found" {
		t.Errorf("got %v", err)
	}
	err = reason(log+"none", fmt.Errorf("start: %w", os.ErrPermission))
	if err.Error() != "start: permission denied" {
		t.Errorf("without a log: got %v", err)
	}
}
