package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// events is what go test -json prints, shortened.
const events = `{"Action":"start","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Output":"-test.shuffle 17\n"}
{"Action":"run","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestSkip"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestSkip","Output":"=== RUN   TestSkip\n"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestSkip","Output":"    a_test.go:7: needs root: to mount\n"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestSkip","Elapsed":0}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestAllowed/sub","Output":"    a_test.go:9: needs root: to mount\n"}
{"Action":"skip","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestAllowed/sub","Elapsed":0}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestAllowed","Output":"--- PASS: TestAllowed (0.00s)\n"}
{"Action":"pass","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Test":"TestAllowed","Elapsed":0}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Output":"PASS\n"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Output":"ok  \tpkg/a\t0.1s\n"}
{"Action":"pass","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/a","Elapsed":0.1}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/b","Test":"TestFail","Output":"    b_test.go:3: broken\n"}
{"Action":"fail","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/b","Test":"TestFail","Elapsed":0}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/b","Output":"FAIL\n"}
{"Action":"fail","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/b","Elapsed":0.1}
{"ImportPath":"pkg/c","Action":"build-output","Output":"c.go:1: syntax error\n"}
{"Action":"output","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/d","Output":"?   \tpkg/d\t[no test files]\n"}
{"Action":"skip","Package":"github.com/ccv2/containerd-shim-ccv2/pkg/d","Elapsed":0}
`

func TestReport(t *testing.T) {
	var out, summary bytes.Buffer
	r := newReport(&out)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	allowed, err := parseList("# comment\n\npkg/a TestAllowed/sub a reason\n")
	if err != nil {
		t.Fatal(err)
	}
	if unlisted := r.summarize(&summary, allowed); unlisted != 1 {
		t.Errorf("%d are not in the list, want 1", unlisted)
	}
	const wantOut = "ok  \tpkg/a\t0.1s\n    b_test.go:3: broken\nFAIL\nc.go:1: syntax error\n?   \tpkg/d\t[no test files]\n"
	if diff := cmp.Diff(wantOut, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	const wantSummary = `2 tests ran, 2 were skipped, 1 of them not in the list of those that may be
    2: needs root: to mount
        pkg/a TestAllowed/sub
        pkg/a TestSkip (not in test/unit/skips.txt)
`
	if diff := cmp.Diff(wantSummary, summary.String()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if err := newReport(&out).read(strings.NewReader("nonsense")); err == nil {
		t.Error("nonsense is read")
	}
}

func TestList(t *testing.T) {
	if _, err := parseList(listed); err != nil {
		t.Error(err)
	}
	if list, err := parseList("pkg/a Test\n"); err == nil {
		t.Errorf("a line without a reason: %v", list)
	}
}
