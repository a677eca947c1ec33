package console

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConsole(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", []string{}},
		{"lines", "a\r\nb\n", []string{"a", "b"}},
		{"unfinished", "a\nb", []string{"a", "b"}},
		{"escape sequences", "\x1bc\x1b[?7l\x1b[2J\x1b[1;31mred\x1b[0m\n", []string{"red"}},
		{"sequence without end", "\x1b[1\nnext\n", []string{"", "next"}},
		{"control characters", "a\x00\x07\x08\tb\x7f\n", []string{"a b"}},
		{"not ASCII", "\xff\xc3\xa4\n", []string{"???"}},
		{"long line", strings.Repeat("x", 10*maxLineLen) + "\ny\n", []string{strings.Repeat("x", maxLineLen), "y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New()
			for _, b := range []byte(tt.in) { // the smallest pieces
				if _, err := c.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, c.Tail(100)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConsoleTail(t *testing.T) {
	c := New()
	const more = maxLines + 7
	for i := range more {
		fmt.Fprintln(c, i)
	}
	if got, want := c.Tail(2), []string{fmt.Sprint(more - 2), fmt.Sprint(more - 1)}; !slices.Equal(got, want) {
		t.Errorf("tail %q, want %q", got, want)
	}
	all := c.Tail(1 << 20)
	if len(all) != maxLines || all[0] != "7" {
		t.Errorf("%d lines from %q", len(all), all[0])
	}
	if got := c.Tail(-1); len(got) != 0 {
		t.Errorf("tail(-1) = %q", got)
	}
}
