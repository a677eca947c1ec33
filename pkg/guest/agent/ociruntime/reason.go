package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// reason replaces go-runc's "did not terminate successfully" by what the
// runtime wrote to its log, and classifies it.
func reason(log string, err error) error {
	b, _ := os.ReadFile(log) // without a log, what it wrote to stderr may be in the error
	all := logErrors(string(b))
	if len(all) == 0 {
		all = logErrors(err.Error())
	}
	if len(all) == 0 {
		all = []string{err.Error()}
	}
	answer := &hyperstart.GuestError{Err: errors.New(strings.Join(all, "; "))}
	for _, msg := range all { // each by itself: words of two say nothing together
		if answer.Class, answer.ExitStatus = classify(msg); answer.ExitStatus != 0 {
			break
		}
	}
	return answer
}

// logErrors returns the errors in a log of JSON lines, each once.
func logErrors(log string) []string {
	var all []string
	for text := range strings.Lines(log) {
		_, object, found := strings.Cut(text, "{") // go-runc puts its own words before it
		var line struct{ Level, Msg string }
		if !found || json.Unmarshal([]byte("{"+object), &line) != nil || line.Level != "error" {
			continue
		}
		msg := lowerErrno(strings.TrimSpace(plainer.Replace(line.Msg)))
		if msg != "" && !slices.Contains(all, msg) {
			all = append(all, msg)
		}
	}
	return all
}

// errno is the text of the C library for an error, with which crun ends.
var errno = regexp.MustCompile(": (No such file or directory|No such device|No such process|No space left on device|Permission denied|" +
	"Operation not permitted|Operation not supported|Invalid argument|Exec format error|Is a directory|Not a directory|File exists|" +
	"File name too long|Device or resource busy|Read-only file system|Too many open files|Too many levels of symbolic links|" +
	"Cannot allocate memory|Resource temporarily unavailable|Broken pipe|Input/output error|Argument list too long|Function not implemented)$")

// lowerErrno writes the text of a system's error as Go does, and therefore runc:
// docker looks for "no such file or directory" and "permission denied".
func lowerErrno(msg string) string {
	at := errno.FindStringIndex(msg)
	if at == nil {
		return msg
	}
	return msg[:at[0]] + strings.ToLower(msg[at[0]:])
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

// lookup is how crun begins when it has not found the program, or may not run it.
var lookup = regexp.MustCompile("(?is)^(executable file .* not found|open executable: |the path .* (is not a regular file|is not executable)|cannot open .*: not a directory$)")

// nameProgram gives an error about the program the words that runc has, which
// clients look for, and adds its name to one that does not say which it was.
func nameProgram(err error, program string) error {
	e, ok := errors.AsType[*hyperstart.GuestError](err)
	switch {
	case !ok || e.ExitStatus == 0:
		return err
	case lookup.MatchString(e.Error()):
		return inWordsOfRunc(e.Error(), program)
	case !strings.Contains(err.Error(), program):
		return fmt.Errorf("exec %s: %w", program, err)
	}
	return err
}

func inWordsOfRunc(msg, program string) error {
	exit, why := uint8(exitNotExecutable), "permission denied"
	is := func(phrase string) bool { return strings.Contains(msg, phrase) }
	switch {
	case !strings.Contains(program, "/"): // runc passes over all that it cannot run
		exit, why = exitNotFound, "executable file not found in $PATH"
	case is("not found"), is("no such file"):
		exit, why = exitNotFound, "stat "+program+": no such file or directory"
	case is("not a directory"):
		why = "stat " + program + ": not a directory"
	case is("not a regular file"):
		why = "is a directory, or no regular file"
	}
	return &hyperstart.GuestError{
		Class: hyperstart.ClassInvalidArgument, ExitStatus: exit, Err: fmt.Errorf("exec: %q: %s", program, why),
	}
}
