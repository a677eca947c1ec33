package main

import (
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	r := row{want: "hello", differs: "the guest has another kernel", wantVM: "6."}
	for _, c := range []struct {
		row        row
		runc, ccv2 string
		want       verdict
	}{
		{row{want: "hello"}, "hello\n", "hello\n", same},
		{row{want: "hello"}, "hello\n", "other\n", different},
		{row{want: "hello"}, "other\n", "other\n", broken},
		{row{want: "hello"}, "$ echo hello\n[1]\n", "$ echo hello\n[1]\n", broken},
		{r, "hello 5.1\n", "hello 6.1\n", explained},
		{r, "hello 5.1\n", "failed\n", different},
	} {
		if got := c.row.verdict(c.runc, c.ccv2); got != c.want {
			t.Errorf("%q and %q: verdict %d, want %d", c.runc, c.ccv2, got, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	got, want := diff("a\nb\nc\n", "a\nx\nc\nd\n"), "    a\n  - b\n  + x\n    c\n  + d\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestNormalise(t *testing.T) {
	const text = "0123456789ab up 3 seconds, 2026-11-29T09:32:28.5Z io.containerd.cc.v2 10.4.0.7 deadbeef\r\n"
	if got, want := normalise(text), "<id> up <duration>, <time> <runtime> <ip> deadbeef\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A row is found by its name, and two rows have the same name in no client.
func TestRows(t *testing.T) {
	for _, client := range []string{nerdctlName, dockerName} {
		seen := map[string]bool{}
		for _, r := range rowsOf(client) {
			if seen[r.name] || r.want == "" || strings.Contains(r.name, "/") || (r.differs == "") != (r.wantVM == "") {
				t.Errorf("%s: row %q is there twice, or incomplete", client, r.name)
			}
			seen[r.name] = true
		}
	}
}
