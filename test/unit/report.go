package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// module is cut off the names of packages.
const module = "github.com/ccv2/containerd-shim-ccv2/"

// event is one line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // in place of Package, for the output of a build
	Test        string
	Output      string
	FailedBuild string
}

// test names a test.
type test struct{ pkg, name string }

func (t test) String() string { return t.pkg + " " + t.name }

// report is what is known of a run.
type report struct {
	out     io.Writer
	output  map[test][]string // of tests that run
	pkgs    map[string][]string
	skipped map[test]string // the reason
	ran     int             // tests that passed or failed
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: make(map[test][]string), pkgs: make(map[string][]string), skipped: make(map[test]string)}
}

// read takes the events of a run. It prints what go test itself would: the results
// of packages, and all output of tests that fail.
func (r *report) read(in io.Reader) error {
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var e event
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
		r.take(e)
	}
}

func (r *report) take(e event) {
	t := test{strings.TrimPrefix(e.Package, module), e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "pass", "fail", "skip":
		r.end(t, e.Action)
	}
}

// end notes the result of a test, or of a package when the test has no name.
func (r *report) end(t test, result string) {
	lines := r.output[t]
	delete(r.output, t)
	if t.name == "" {
		for _, line := range append(r.pkgs[t.pkg], lines...) {
			if line != "PASS\n" && !strings.HasPrefix(line, "-test.shuffle ") {
				fmt.Fprint(r.out, line)
			}
		}
		delete(r.pkgs, t.pkg)
		return
	}
	switch result {
	case "skip":
		r.skipped[t] = reason(lines)
	case "fail":
		r.ran++
		r.pkgs[t.pkg] = append(r.pkgs[t.pkg], lines...)
	default:
		r.ran++
	}
}

// reason is what a test said last, without the place where it said so.
func reason(lines []string) string {
	said := ""
	for _, line := range lines {
		text := strings.TrimSpace(line)
		if text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			said = text
		}
	}
	place, text, ok := strings.Cut(said, ": ")
	if ok && strings.Contains(place, ".go:") {
		return text
	}
	return said
}

// parseList reads a list of tests that may be skipped. A line is a package without
// the module's name, a test and the reason.
func parseList(text string) (map[test]bool, error) {
	list := make(map[test]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		const parts = 3
		f := strings.Fields(line)
		if len(f) < parts {
			return nil, fmt.Errorf("skips.txt: %q: want a package, a test and a reason", line)
		}
		list[test{f[0], f[1]}] = true
	}
	return list, nil
}

// summarize says what was skipped and returns how much of that is not allowed.
func (r *report) summarize(w io.Writer, allowed map[test]bool) (unlisted int) {
	reasons := make(map[string][]string)
	for t, why := range r.skipped {
		name := t.String()
		if !allowed[t] {
			unlisted++
			name += " (not in test/unit/skips.txt)"
		}
		reasons[why] = append(reasons[why], name)
	}
	fmt.Fprintf(w, "%d tests ran, %d were skipped, %d of them not in the list of those that may be\n", r.ran, len(r.skipped), unlisted)
	all := make([]string, 0, len(reasons))
	for why := range reasons {
		all = append(all, why)
	}
	slices.SortFunc(all, func(a, b string) int {
		if n := len(reasons[b]) - len(reasons[a]); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	for _, why := range all {
		fmt.Fprintf(w, "    %d: %s\n", len(reasons[why]), why)
		slices.Sort(reasons[why])
		for _, name := range reasons[why] {
			fmt.Fprintf(w, "        %s\n", name)
		}
	}
	return unlisted
}
