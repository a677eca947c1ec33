package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestDispatch(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		stdout string
		stderr string
	}{
		{nil, 2, "", "usage: ccv2 COMMAND"},
		{[]string{"help"}, 0, "usage: ccv2 COMMAND", ""},
		{[]string{"nope"}, 2, "", `unknown command "nope"`},
		{[]string{"image"}, 1, "", "usage: ccv2 image build"},
		{[]string{"image", "build", "--kernel", "/nonexistent/vmlinuz-1"}, 1, "", "ccv2 image: build image: kernel: open /nonexistent/vmlinuz-1"},
		{[]string{"image", "build", "--kernel", "/nonexistent/kernel"}, 1, "", "name the module directory with --modules"},
		{[]string{"image", "build", "--add", "x"}, 1, "", "want SOURCE:/absolute/destination"},
		{[]string{"image", "build", "extra"}, 1, "", `unexpected argument "extra"`},
	} {
		var stdout, stderr bytes.Buffer
		if got := dispatch(tt.args, &stdout, &stderr); got != tt.status {
			t.Errorf("%v: status %d, want %d", tt.args, got, tt.status)
		}
		if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%v: got %q and %q", tt.args, stdout.String(), stderr.String())
		}
	}
}
