package printable_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"plain text":              "plain text",
		"größe 1 €":               "größe 1 €",
		"\x1b[2J\x1b]0;title\x07": "?[2J?]0;title?",
		"a\nb":                    "a | b",
		"a:\r\n  b\n\n\tc\n":      "a: | b | c",
		"a \t b":                  "a b",
		"\n\n a ":                 "a",
		"a\u2028b\u0085c\vd":      "a | b | c | d",
		"\u202egnp.exe\u200b":     "?gnp.exe?",
		"a\x00b\x7f\u009b31m":     "a?b??31m",
		"a\xff\xfeb":              "a??b",
	} {
		if got := printable.Line(in, 100); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestLineIsBounded(t *testing.T) {
	for in, want := range map[string]string{
		"12345678":                   "12345678",
		"123456789":                  "12345…",
		"1234€€€":                    "1234…",
		"12345€":                     "12345€",
		"a\nb\nc":                    "a | b…",
		strings.Repeat("\n", 9):      "…",
		"1" + strings.Repeat(" ", 9): "1…",
	} {
		if got := printable.Line(in, 8); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestError(t *testing.T) {
	err := printable.Error(errors.Join(io.EOF, io.ErrNoProgress), 100)
	if err.Error() != "EOF | multiple Read calls return no data or error" || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
	if err := printable.Error(nil, 100); err != nil {
		t.Errorf("got %v", err)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\n\x1b[1m€\xff", uint8(8))
	f.Fuzz(func(t *testing.T, s string, limit uint8) {
		n := int(limit) + 3
		got := printable.Line(s, n)
		if len(got) > n || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: %q", s, got)
		}
		if again := printable.Line(got, n); again != got {
			t.Errorf("%q became %q", got, again)
		}
	})
}
