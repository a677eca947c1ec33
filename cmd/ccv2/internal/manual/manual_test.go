package manual_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/manual"
)

// TestWrite has all that --help has, and nothing that roff takes for its own.
func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	tool := &cli.Command{Name: "tool", Usage: "do it", Version: "1.2-3", Commands: []*cli.Command{
		{Name: "ps", Usage: "list \"all\"", ArgsUsage: "ID|POD", Description: ".so /etc/passwd\n'quoted' C:\\x --now", Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Aliases: []string{"s"}, Usage: "newer than a `TIME`"}, &cli.IntFlag{Name: "count", Usage: "so many", Value: 7}, &cli.BoolFlag{Name: "json", Usage: "print JSON"},
		}},
		{Name: "other", Usage: "without flags"},
		{Name: "hidden", Hidden: true, Flags: []cli.Flag{&cli.BoolFlag{Name: "x"}}},
	}}
	names, err := manual.Write(dir, tool)
	if err != nil || strings.Join(names, " ") != "tool tool-ps" {
		t.Fatalf("%q, %v", names, err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := read("tool-ps.1")
	for _, want := range []string{
		".TH \"TOOL\\-PS\" 1 \"\" \"ccv2 1.2\\-3\"\n", "\n\\&.so /etc/passwd\n\\&'quoted' C:\\ex \\-\\-now\n", "\n\\&tool ps [OPTION...] ID|POD\n",
		".B \\-\\-since, \\-s TIME\n\\&newer than a TIME\n", ".B \\-\\-count VALUE\n\\&so many (default: 7)\n", ".B \\-\\-json\n\\&print JSON\n", "\\&not root\n", "\\&tool(1)\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not have %q:\n%s", want, text)
		}
	}
	if text := read("tool.1"); !strings.Contains(text, ".B other\n\\&without flags\n") || strings.Contains(text, "hidden") || !strings.Contains(text, "\\&tool\\-ps(1)\n") {
		t.Errorf("the overview:\n%s", text)
	}
}
