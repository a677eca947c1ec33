package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// results are PASS, FAIL or SKIP by the name of the test. A test that has begun
// and not ended has failed.
type results map[string]string

func resultsPath(build, suite, runtime string) string {
	return filepath.Join(build, "suites", suite+"."+runtime+".json")
}

func logPath(build, suite, runtime, of string) string {
	return filepath.Join(build, "suites", suite+"."+runtime+"."+of+".log")
}

func (r results) save(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func load(path string) (results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := results{}
	return r, json.Unmarshal(data, &r)
}

// outcome is a line of `go test -v`. Other output may stand before it.
var outcome = regexp.MustCompile(`(?:=== (RUN)  |--- (PASS|FAIL|SKIP):) (\S+)`)

// parse reads the output of a test binary.
func parse(path string) (results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := results{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		switch m := outcome.FindStringSubmatch(lines.Text()); {
		case m == nil:
		case m[1] != "":
			r[m[3]] = "FAIL"
		default:
			r[m[3]] = m[2]
		}
	}
	if len(r) == 0 {
		return nil, fmt.Errorf("no test has run, see %s", path)
	}
	return r, lines.Err()
}

// count counts the tests, without the parts of tests.
func (r results) count(what string) int {
	n := 0
	for name, outcome := range r {
		if outcome == what && !strings.Contains(name, "/") {
			n++
		}
	}
	return n
}

// compare prints the counts, and the tests that differ.
func compare(w io.Writer, suite string, runc, ccv2 results) error {
	fmt.Fprintf(w, "\n%s | pass | fail | skip\n--- | --- | --- | ---\n", suite)
	for _, name := range runtimes {
		r := map[string]results{"runc": runc, "ccv2": ccv2}[name]
		fmt.Fprintf(w, "%s | %d | %d | %d\n", name, r.count("PASS"), r.count("FAIL"), r.count("SKIP"))
	}
	if runc == nil || ccv2 == nil {
		return nil
	}
	all := maps.Clone(runc)
	maps.Copy(all, ccv2)
	fmt.Fprintf(w, "\n%s: test | runc | ccv2\n--- | --- | ---\n", suite)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if runc[name] != ccv2[name] {
			fmt.Fprintf(w, "%s | %s | %s\n", name, runc[name], ccv2[name])
		}
	}
	return nil
}
