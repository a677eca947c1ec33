package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxName bounds a name, such as a version, in bytes.
	MaxName = 128
	// MaxText bounds the text of one error in bytes: enough for a sentence and the
	// paths in it; more is noise in a log.
	MaxText = 4096
	// MaxReport bounds an error that quotes the last lines of a console, in bytes:
	// 20 lines of 512, and room for what they belong to.
	MaxReport = 16 << 10
)

const (
	lineBreak = " | " // stands for line breaks and the blanks around them
	unknown   = '?'   // stands for what cannot be printed
	cut       = "…"   // stands for the rest
)

// Line returns s as one line of at most limit bytes, which is at least 3. Terminals
// neither obey nor hide anything in it: control and format characters, also those
// that change the direction of text, and what is not UTF-8 become '?'.
func Line(s string, limit int) string {
	whole := len(s) <= limit
	if !whole {
		s = s[:limit] // what is dropped in between makes it shorter still; that is of no use to anybody
	}
	var b strings.Builder
	blank, broken := false, false // what is due before the next character
	for _, r := range s {
		switch {
		case isBreak(r):
			broken = true
			continue
		case unicode.IsSpace(r):
			blank = true
			continue
		case r == utf8.RuneError, !unicode.IsPrint(r):
			r = unknown
		}
		switch {
		case b.Len() == 0:
		case broken:
			b.WriteString(lineBreak)
		case blank:
			b.WriteByte(' ')
		}
		blank, broken = false, false
		b.WriteRune(r)
	}
	line := b.String()
	if whole && len(line) <= limit {
		return line
	}
	end := min(len(line), limit-len(cut))
	for end > 0 && !utf8.RuneStart(line[min(end, len(line)-1)]) {
		end--
	}
	return line[:end] + cut
}

// isBreak reports whether r begins another line, or another page, somewhere.
func isBreak(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', '\u0085', '\u2028', '\u2029':
		return true
	}
	return false
}

// Error returns err with a text that is a [Line]; what it wraps stays. Nil is nil.
func Error(err error, limit int) error {
	if err == nil {
		return nil
	}
	return &lineError{error: err, limit: limit}
}

type lineError struct {
	error
	limit int
}

func (e *lineError) Error() string { return Line(e.error.Error(), e.limit) }
func (e *lineError) Unwrap() error { return e.error }

// Text returns s, which may have many lines, with what is neither printable nor a line
// break or a tab replaced by '?'. It is not bounded.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return unknown
		}
		return r
	}, s)
}
