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

// TestWatch: what comes is there as it is written, without what a terminal would take for more; of a reader that is slow only the last pieces
// are kept, and without one nothing.
func TestWatch(t *testing.T) {
	c := New()
	write := func(s string) {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n# ")
	pieces, from, begin, stop := c.Watch()
	other, _, _, stopOther := c.Watch()
	write("a\x1b[31")
	write("mb\x07\xff\b\tc\r\n")
	all, _ := pieces.From(from)
	if got := strings.Join(all, ""); got != "ab?\b\tc\r\n" || begin != "# " || other != pieces {
		t.Errorf("got %q behind %q", got, begin)
	}
	if diff := cmp.Diff([]string{"before", "# ab? c"}, c.Tail(9)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	write(strings.Repeat("x", 10*maxPieces*maxChunk))
	size := 0
	all, lost := pieces.From(from)
	for _, piece := range all {
		size += len(piece)
	}
	if size > maxPieces*maxChunk || lost == 0 {
		t.Errorf("%d bytes are kept, %d pieces are lost", size, lost)
	}
	stop()
	stop()
	before := pieces.Count()
	if write("seen"); pieces.Count() != before+1 {
		t.Error("the other one does not see it")
	}
	stopOther()
	if write("unseen"); pieces.Count() != before+1 || c.live != nil {
		t.Error("it is kept for nobody")
	}
}
