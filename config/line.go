package config

import (
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

var (
	tableLine = regexp.MustCompile(`^\s*\[\[?\s*([^\]]+?)\s*\]`)
	keyLine   = regexp.MustCompile(`^\s*([\w."'-]+(?:\s*\.\s*[\w."'-]+)*)\s*=`)
	unquote   = strings.NewReplacer(`"`, "", `'`, "", " ", "", "\t", "")
)

// lineOf finds the line of a key, which the TOML library does not report. It is
// exact for keys and tables on lines of their own, that is all but the keys of
// inline tables, for which it is the line where the table begins.
func lineOf(text string, key toml.Key) int {
	want := unquote.Replace(key.String())
	table, best, bestLen := "", 1, 0
	for i, line := range strings.Split(text, "\n") {
		full := ""
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = unquote.Replace(m[1])
			full = table
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			full = unquote.Replace(m[1])
			if table != "" {
				full = table + "." + full
			}
		}
		if full == want {
			return i + 1
		}
		if full != "" && len(full) > bestLen && strings.HasPrefix(want, full+".") {
			best, bestLen = i+1, len(full)
		}
	}
	return best
}
