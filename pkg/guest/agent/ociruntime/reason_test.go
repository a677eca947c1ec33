package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
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

// TestReason takes what crun 1.8.1 and 1.21 say into the words of runc.
func TestReason(t *testing.T) {
	const pathless = `exec: "x": executable file not found in $PATH`
	for _, tt := range []struct {
		msg, program string
		exit         uint8
		want         string
	}{
		{"executable file `x` not found in $PATH: No such file or directory", "x", 127, pathless},
		{"executable file `x` not found in $PATH", "x", 127, pathless},
		{"open executable: Permission denied", "x", 127, pathless},
		{"executable file `/x` not found in $PATH: No such file or directory", "/x", 127, `exec: "/x": stat /x: no such file or directory`},
		{"executable file `a/x` not found: No such file or directory", "a/x", 127, `exec: "a/x": stat a/x: no such file or directory`},
		{"open executable: Permission denied", "/x", 126, `exec: "/x": permission denied`},
		{"the path `/x` exists but it is not executable: Operation not permitted", "/x", 126, `exec: "/x": permission denied`},
		{"open executable: Operation not permitted", "/x", 126, `exec: "/x": is a directory, or no regular file`},
		{"the path `/x` is not a regular file: Operation not permitted", "/x", 126, `exec: "/x": is a directory, or no regular file`},
		{"open executable: Not a directory", "/x", 126, `exec: "/x": stat /x: not a directory`},
		{"cannot open `/x`: Not a directory", "/x", 126, `exec: "/x": stat /x: not a directory`},
		{"exec container process: Exec format error", "/x", 126, "exec /x: exec container process: exec format error"},
		{"chdir `/d`: No such file or directory", "/x", 0, "chdir `/d`: no such file or directory"},
		{"mount `a` to `b`: Operation not permitted", "/x", 0, "mount `a` to `b`: operation not permitted"},
		{"container `X: Y` does not exist", "/x", 0, "container `X: Y` does not exist"},
	} {
		log := filepath.Join(t.TempDir(), "log")
		line, err := json.Marshal(map[string]string{"msg": tt.msg, "level": "error"})
		if err == nil {
			err = os.WriteFile(log, append(line, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := nameProgram(reason(log, errors.New("did not terminate successfully")), tt.program)
		ge, ok := errors.AsType[*hyperstart.GuestError](got)
		if !ok || got.Error() != tt.want || ge.ExitStatus != tt.exit {
			t.Errorf("%s: got %v, %+v, want %d, %s", tt.msg, got, ge, tt.exit, tt.want)
		}
	}
}

// TestReasonOfSeveralLines: the text of all errors, and nothing of the JSON around
// it, wherever it was written to.
func TestReasonOfSeveralLines(t *testing.T) {
	const lines = `{"msg":"first","level":"error"}` + "\nnot json\n" + `{"msg":"then","level":"error"}` + "\n" +
		`{"msg":"w","level":"warning"}` + "\n" + `{"msg":"first","level":"error"}`
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := fmt.Errorf("start: %w", os.ErrPermission)
	for _, tt := range []struct {
		log  string
		err  error
		want string
	}{
		{log, plain, "first; then"},
		{log + "none", errors.New("exit status 1: " + lines), "first; then"},
		{log + "none", plain, "start: permission denied"},
	} {
		if got := reason(tt.log, tt.err); got.Error() != tt.want {
			t.Errorf("got %v, want %s", got, tt.want)
		}
	}
}

// TestWordsOfTwoMessages are not taken together, and names keep their letters.
func TestWordsOfTwoMessages(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := `{"level":"error","msg":"error executing hook ` + "`/x`" + `"}` + "\n" + `{"level":"error","msg":"write /Data: Permission denied"}`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := reason(log, errors.New("exit status 1"))
	e, ok := errors.AsType[*hyperstart.GuestError](err)
	if !ok || e.ExitStatus != 0 || err.Error() != "error executing hook `/x`; write /Data: permission denied" {
		t.Errorf("%v, status %d", err, e.ExitStatus)
	}
	for _, msg := range []string{"mount `x`: Invalid argument: /Data/My", "cannot find user: Bob Smith"} {
		if got := lowerErrno(msg); got != msg {
			t.Errorf("%q became %q", msg, got)
		}
	}
}
