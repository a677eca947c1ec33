package house

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const runbook = "../../docs/operations.md"

// TestRunbook wants an entry of the runbook for each error text of the product, and a text for
// each entry. A text is looked up by what is constant in it; "…" stands for the rest. One that
// has fewer than two words of its own says nothing without those that are around it.
func TestRunbook(t *testing.T) {
	entries := runbookEntries(t)
	used := make(map[string]bool)
	texts := make(map[string]string) // and where each one is first
	for _, s := range tree(t) {
		if !s.product() || slices.ContainsFunc(strings.Split(s.dir(), "/"), helper) {
			continue
		}
		for _, text := range errorTexts(s.file) {
			if _, seen := texts[text]; !seen {
				texts[text] = s.path
			}
		}
	}
	if len(texts) < 500 {
		t.Errorf("only %d texts were found", len(texts))
	}
	for text, path := range texts {
		found := false
		for pattern, e := range entries {
			if e.MatchString(text) {
				found, used[pattern] = true, true
			}
		}
		if !found {
			t.Errorf("%s: docs/operations.md has no entry for the error %q", path, text)
		}
	}
	for pattern := range entries {
		if !used[pattern] {
			t.Errorf("docs/operations.md has an entry for %q, which is no error of the product", pattern)
		}
	}
}

// helper reports whether a directory has what tests alone use.
func helper(dir string) bool { return dir == "fake" || strings.HasSuffix(dir, "test") }

// runbookEntries are the patterns of the runbook, from the first cells of the tables about error texts.
func runbookEntries(t *testing.T) map[string]*regexp.Regexp {
	t.Helper()
	text, err := os.ReadFile(runbook)
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n## Error texts\n")
	part, _, _ = strings.Cut(part, "\n## ")
	if !found {
		t.Fatal("docs/operations.md has no part about error texts")
	}
	code := regexp.MustCompile("`([^`]+)`")
	entries := make(map[string]*regexp.Regexp)
	for line := range strings.Lines(part) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| text") {
			continue
		}
		if len(cells) != 4 || strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("docs/operations.md: want text, command, meaning and remedy: %.80s", line)
			continue
		}
		for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
			if words(m[1]) < 2 {
				t.Errorf("docs/operations.md: %q fits too much", m[1])
			}
			entries[m[1]] = regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(m[1]), "…", ".*") + "$")
		}
	}
	return entries
}

var word = regexp.MustCompile(`[A-Za-z]{2,}`)

func words(s string) int { return len(word.FindAllString(s, -1)) }

var (
	verb = regexp.MustCompile(`%(\[\d+\])?[-+#0-9.]*[a-zA-Z]`)
	tail = regexp.MustCompile(`(:? ?…)+$`)
	head = regexp.MustCompile(`^(… ?: )+`)
)

// errorTexts are the texts of errors that a file makes, and of what it logs as an error or a warning.
func errorTexts(file *ast.File) (texts []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !makesError(call.Fun) {
			return true
		}
		for _, arg := range call.Args { // a class may come before the format
			format, ok := literal(arg)
			if !ok {
				continue
			}
			text := strings.ReplaceAll(verb.ReplaceAllString(format, "…"), "%%", "%")
			text = head.ReplaceAllString(tail.ReplaceAllString(text, ""), "")
			if words(text) >= 2 {
				texts = append(texts, text)
			}
			break
		}
		return true
	})
	return texts
}

// makesError reports whether a function makes an error from a text, or logs one.
func makesError(fun ast.Expr) bool {
	switch f := fun.(type) {
	case *ast.Ident:
		return strings.HasSuffix(f.Name, "Errorf") || f.Name == "UsageError"
	case *ast.SelectorExpr:
		x, _ := f.X.(*ast.Ident)
		_, chained := f.X.(*ast.CallExpr) // log.G(ctx).WithError(err).Warn
		return strings.HasSuffix(f.Sel.Name, "Errorf") || f.Sel.Name == "UsageError" || f.Sel.Name == "Warn" || f.Sel.Name == "Error" && (chained || x != nil && x.Name == "entry") ||
			f.Sel.Name == "New" && x != nil && x.Name == "errors"
	}
	return false
}

// literal is the text of a string in a program, also of one in parts.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		switch {
		case ok && also:
			return left + right, true
		case ok:
			return left + "%s", true
		case also:
			return "%s" + right, true
		}
	}
	return "", false
}
