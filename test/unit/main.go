// Command unit runs go test and says at its end how many tests were skipped, and
// why: a test that is skipped everywhere proves nothing and is easily forgotten.
//
// In CI (CI=true) a skip fails the run unless skips.txt, beside this file, has the
// test: there what a machine of CI cannot have is listed, with the reason.
//
// usage: go run ./test/unit GO-TEST-ARGUMENT...
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

//go:embed skips.txt
var listed string

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		status = 1
	}
	os.Exit(status)
}

// run returns the exit status.
func run(args []string) (int, error) {
	allowed, err := parseList(listed)
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := newReport(os.Stdout)
	readErr := r.read(out)
	if readErr != nil {
		_ = cmd.Process.Kill() // it would wait for a reader
	}
	waitErr := cmd.Wait()
	if _, failed := errors.AsType[*exec.ExitError](waitErr); waitErr != nil && !failed {
		return 0, waitErr
	}
	if readErr != nil {
		return 0, readErr
	}
	var summary bytes.Buffer
	unlisted := r.summarize(&summary, allowed)
	fmt.Print(summary.String())
	if !cmd.ProcessState.Success() || unlisted > 0 && os.Getenv("CI") != "" {
		return 1, nil
	}
	return 0, nil
}
