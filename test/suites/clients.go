package main

import (
	"context"
	_ "embed" // clients.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	nerdctlName = "nerdctl"
	dockerName  = "docker"
)

// nerdctlSuite and dockerSuite do with a client what its users do.
var (
	nerdctlSuite = suite{name: nerdctlName, build: buildClient(nerdctlName), run: runClient(nerdctlName), compare: compareRows}
	dockerSuite  = suite{name: dockerName, build: buildClient(dockerName), run: runClient(dockerName), compare: compareRows}
)

// row is what a user types, and what differs in a VM.
type row struct {
	name   string
	only   string // nerdctl or docker; both when it is empty
	script string // a command of sh in each line, with the functions of clients.sh
	// want is in the transcript with runc: the row has found what it is about.
	want string
	// differs is the reason why a VM gives another transcript; wantVM is then in it.
	differs, wantVM string
}

//go:embed clients.sh
var functions []byte

const (
	clientImage = "ghcr.io/containerd/busybox:1.36"
	rowTimeout  = 100 * time.Second
)

// buildClient has the client built by make, which keeps it.
func buildClient(name string) func(context.Context, options) error {
	return func(ctx context.Context, o options) error {
		return run(ctx, "../..", "make", "--no-print-directory", "BUILD="+o.build, "client-"+name)
	}
}

// runClient returns a run that gives the transcripts of all rows.
func runClient(name string) func(context.Context, options, string) (results, error) {
	return func(ctx context.Context, o options, runtime string) (results, error) {
		only, err := regexp.Compile(o.run)
		if err != nil {
			return nil, err
		}
		d, err := startDaemon(ctx, o, runtime)
		if err != nil {
			return nil, err
		}
		defer d.close()
		c, err := newClient(name, o, runtime)
		if err != nil {
			return nil, err
		}
		if name == dockerName {
			e, err := startEngine(ctx, o, runtime)
			if err != nil {
				return nil, err
			}
			defer e.close()
		}
		r := results{}
		if got := c.shell(ctx, len(rowsOf(name)), ". \"$FUNCTIONS\"\nc pull -q $image\n"); strings.Contains(got, "[") {
			return nil, fmt.Errorf("pull the image: %s", got)
		}
		for i, row := range rowsOf(name) {
			if !only.MatchString(row.name) {
				continue
			}
			begin := time.Now()
			r[row.name] = c.play(ctx, i, row)
			fmt.Printf("    %s with %s: %s: %.1f s\n", name, runtime, row.name, time.Since(begin).Seconds())
		}
		return r, nil
	}
}

// client is a client with one runtime.
type client struct {
	dir string // the rows' files
	env []string
	log *os.File // transcripts as they were before they were normalised
}

func newClient(name string, o options, runtime string) (*client, error) {
	dir := filepath.Join(o.scratch, "rows")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(o.scratch, "clients.sh")
	if err := os.WriteFile(path, functions, 0o644); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Clients look for the init of --init under this name.
	if err := os.Symlink("/usr/bin/tini-static", "/usr/local/bin/tini"); err != nil {
		return nil, err
	}
	log, err := os.Create(logPath(o.build, o.suite, runtime, "rows"))
	if err != nil {
		return nil, err
	}
	kind := map[string]string{"runc": "io.containerd.runc.v2", "ccv2": "io.containerd.cc.v2"}[runtime]
	env := append(os.Environ(), "CLIENT="+name, "RUNTIME="+kind, "FUNCTIONS="+path, "SUITES="+self, "image="+clientImage, "TERM=xterm",
		"PATH="+filepath.Join(o.build, name)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return &client{dir: dir, env: env, log: log}, nil
}

// play runs a row and removes what it has made. The transcript ends with what
// could not be removed.
func (c *client) play(ctx context.Context, i int, r row) string {
	text := strings.Builder{}
	text.WriteString(". \"$FUNCTIONS\"\n")
	for line := range strings.Lines(r.script) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(&text, "printf '$ %%s\\n' %s\n%s\necho \"[$?]\"\n", quote(line), line)
		}
	}
	got := c.shell(ctx, i, text.String()) + c.shell(ctx, i, ". \"$FUNCTIONS\"\ncleanup\n")
	fmt.Fprintf(c.log, "=== %s\n%s\n", r.name, got)
	return normalise(got)
}

func (c *client) shell(ctx context.Context, i int, text string) string {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	dir := filepath.Join(c.dir, fmt.Sprint("r", i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err.Error()
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", text)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(c.env, fmt.Sprint("n=r", i))
	// Not a pipe: what a row leaves in the background would hold it open.
	out, err := os.OpenFile(dir+".out", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	data, errRead := os.ReadFile(out.Name())
	text = string(data)
	if ctx.Err() != nil {
		text += "[timed out]\n"
	} else if err := errors.Join(err, errRead); err != nil {
		text += fmt.Sprintf("[%v]\n", err)
	}
	return text
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// variable is what differs between two runs of the same commands.
var variable = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`\r`), ""},
	// A signal that comes when the container has ended, or a moment before.
	{regexp.MustCompile(`time="[^"]*" level=error msg="forward signal .*\n`), ""},
	{regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`), ""},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d)( [A-Z]{3})?)?`), "<time>"},
	{regexp.MustCompile(`(?i)(about an?|less than an?|\d+) (milli)?(second|minute)s?( ago)?`), "<duration>"},
	{regexp.MustCompile(`\b(10|172)\.\d+\.\d+\.\d+\b`), "<ip>"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "<mac>"},
	{regexp.MustCompile(`io\.containerd\.(runc|cc)\.v2`), "<runtime>"},
	{regexp.MustCompile(`\b(INFO|WARN|ERRO|FATA)\[\d+\]`), "$1"},
	{regexp.MustCompile(`suites-\d+`), "<scratch>"},
}

func normalise(text string) string {
	for _, v := range variable {
		text = v.is.ReplaceAllString(text, v.as)
	}
	return text
}
