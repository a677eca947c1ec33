package ociruntime

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// reason replaces go-runc's "did not terminate successfully" by what the
// runtime wrote to its log, and classifies it.
func reason(log string, err error) error {
	if msg := lastLogError(log); msg != "" {
		err = errors.New(msg)
	}
	class, exit := classify(err.Error())
	return &hyperstart.GuestError{Class: class, ExitStatus: exit, Err: err}
}

// lastLogError returns the last error in a log of JSON lines, "" for none.
func lastLogError(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	msg := ""
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var line struct{ Level, Msg string }
		if json.Unmarshal(s.Bytes(), &line) == nil && line.Level == "error" && line.Msg != "" {
			msg = line.Msg
		}
	}
	return strings.TrimSpace(plainer.Replace(msg))
}

// plainer replaces the errors that crun has for a program that is a directory, or
// worse, and since 1.21 for one without the permission.
var plainer = strings.NewReplacer(
	"open executable: Operation not permitted", "open executable: not a regular file",
	"is not a regular file: Operation not permitted", "is not a regular file",
	"is not executable: Operation not permitted", "is not executable: permission denied",
)

// Exit statuses of a shell for a program that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Phrases of crun and runc when the program itself is the problem.
var (
	notFoundPhrase = regexp.MustCompile("(?i)executable file .*(not found|no such file)|(exec|open executable|stat) .*no such file or directory")
	notExecPhrase  = regexp.MustCompile("(?i)(exec|executable).*(permission denied|exec format error|is a directory|not a directory|not a regular file)|^the path .* is not a regular file|^cannot open .*: not a directory$")
)

// classify finds out from the runtime's message whether the program could not
// be run. The class is invalid_argument and not not_found, which would read as
// if the container did not exist.
func classify(msg string) (hyperstart.ErrorClass, uint8) {
	switch {
	case notFoundPhrase.MatchString(msg):
		return hyperstart.ClassInvalidArgument, exitNotFound
	case notExecPhrase.MatchString(msg):
		return hyperstart.ClassInvalidArgument, exitNotExecutable
	}
	return hyperstart.ClassUnknown, 0
}

// nameProgram adds the program to a message that does not say which one could
// not be run.
func nameProgram(err error, program string) error {
	e, ok := errors.AsType[*hyperstart.GuestError](err)
	if ok && e.ExitStatus != 0 && !strings.Contains(err.Error(), program) {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return err
}
