package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"
)

// Section is that of programs.
const section = "1"

// statuses are the exit statuses of the commands about sandboxes.
var statuses = [][2]string{
	{"0", "it has worked"},
	{"1", "it has failed; the error says in which phase, what, and what to do"},
	{"2", "wrong usage"},
	{"3", "there is no such sandbox"},
	{"4", "not root"},
	{"5", "the shim does not answer, or is dead"},
	{"any", "that of the program, with ccv2 exec"},
}

// Write writes a page for the tool and one for each of its commands that has flags into a directory, and returns their
// names.
func Write(dir string, tool *cli.Command) (names []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("write manual pages: %w", err)
	}
	pages := map[string]string{tool.Name: overview(tool)}
	names = append(names, tool.Name)
	for _, c := range tool.Commands {
		if c.Hidden || len(c.Flags) == 0 {
			continue
		}
		name := tool.Name + "-" + c.Name
		names = append(names, name)
		pages[name] = page(tool, c)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name+"."+section), []byte(pages[name]), 0o644); err != nil {
			return nil, fmt.Errorf("write manual pages: %w", err)
		}
	}
	return names, nil
}

// roff is a page under construction.
type roff struct{ strings.Builder }

func begin(name, usage, version string) *roff {
	r := new(roff)
	fmt.Fprintf(r, ".TH %s %s \"\" %s\n", quote(strings.ToUpper(name)), section, quote("ccv2 "+version))
	r.section("NAME")
	r.text(name + " - " + usage)
	return r
}

func (r *roff) section(name string) { fmt.Fprintf(r, ".SH %s\n", quote(name)) }

// text is a paragraph. No line of it is taken for a request.
func (r *roff) text(s string) {
	for line := range strings.Lines(s) {
		r.WriteString(`\&` + escape(strings.TrimSuffix(line, "\n")) + "\n")
	}
}

// item is a term with what is said of it.
func (r *roff) item(term, text string) {
	r.WriteString(".TP\n.B " + escape(term) + "\n")
	r.text(text)
}

func escape(s string) string { return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s) }

func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }

// overview is the page of the tool.
func overview(tool *cli.Command) string {
	r := begin(tool.Name, tool.Usage, tool.Version)
	r.section("SYNOPSIS")
	r.text(tool.Name + " COMMAND [ARGUMENT...]")
	r.section("DESCRIPTION")
	r.text("Pods of containerd in VMs: the sandboxes of a host, and the host itself. A sandbox is named by its id, the begin of its id, its pod, or the pod with its namespace.")
	r.section("COMMANDS")
	for _, c := range tool.Commands {
		if !c.Hidden {
			r.item(c.Name, c.Usage)
		}
	}
	r.end(tool, "")
	return r.String()
}

// page is that of a command.
func page(tool, c *cli.Command) string {
	r := begin(tool.Name+"-"+c.Name, c.Usage, tool.Version)
	r.section("SYNOPSIS")
	r.text(strings.TrimSpace(tool.Name + " " + c.Name + " [OPTION...] " + c.ArgsUsage))
	if c.Description != "" {
		r.section("DESCRIPTION")
		r.text(c.Description)
	}
	r.section("OPTIONS")
	for _, f := range c.Flags {
		if term, text, ok := option(f); ok {
			r.item(term, text)
		}
	}
	r.end(tool, c.Name)
	return r.String()
}

// option is a flag as --help has it.
func option(f cli.Flag) (term, text string, ok bool) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "", "", false
	}
	text, placeholder := d.GetUsage(), ""
	if before, rest, found := strings.Cut(text, "`"); found { // the name of the value
		value, after, _ := strings.Cut(rest, "`")
		placeholder, text = value, before+value+after
	} else if d.TakesValue() {
		placeholder = "VALUE"
	}
	names := make([]string, 0, len(f.Names()))
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+name)
	}
	term = strings.Join(names, ", ")
	if placeholder != "" {
		term += " " + placeholder
	}
	if value := d.GetValue(); d.TakesValue() && value != "" && value != `""` && value != "0" && !strings.Contains(text, "default:") {
		text += " (default: " + value + ")"
	}
	return term, text, true
}

// end has what all pages end with.
func (r *roff) end(tool *cli.Command, own string) {
	r.section("EXIT STATUS")
	for _, s := range statuses {
		r.item(s[0], s[1])
	}
	r.section("SEE ALSO")
	var others []string
	if own != "" {
		others = append(others, tool.Name+"("+section+")")
	}
	for _, c := range tool.Commands {
		if !c.Hidden && len(c.Flags) > 0 && c.Name != own {
			others = append(others, tool.Name+"-"+c.Name+"("+section+")")
		}
	}
	r.text(strings.Join(others, ", "))
}
