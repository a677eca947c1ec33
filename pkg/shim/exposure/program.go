package exposure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
)

// Exit statuses of a shell for a program that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// FindProgram says why the program of a process cannot be run, in runc's words, as far as the
// container's files tell on the host. What lies in a mount that only the guest has is not judged.
//
// It is a hint: what would take too many steps to find is not judged either, and is for the guest to say.
func (e *Exposure) FindProgram(ctx context.Context, p *specs.Process) error {
	l, err := e.openFiles(ctx)
	if errors.Is(err, errTooFar) {
		return nil
	}
	name := p.Args[0]
	if err != nil {
		return fmt.Errorf("look for program %q: %w", name, err)
	}
	defer l.close()
	if strings.Contains(name, "/") {
		return l.judge(ctx, name, p.Cwd, name)
	}
	dirs, ok := searchPath(p.Env)
	if !ok {
		return nil // the guest has a path of its own
	}
	for _, dir := range dirs {
		if dir == "" {
			dir = "."
		}
		err := l.judge(ctx, name, p.Cwd, dir+"/"+name)
		if _, refused := client.ExitStatus(err); !refused {
			return err
		}
	}
	return client.CannotRun(exitNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", name))
}

func searchPath(env []string) (dirs []string, ok bool) {
	for _, e := range env {
		if path, found := strings.CutPrefix(e, "PATH="); found {
			dirs, ok = filepath.SplitList(path), true
		}
	}
	return dirs, ok
}

// judge refuses the program called name at a path, which begins at cwd when it is not absolute.
func (l *lookup) judge(ctx context.Context, name, cwd, path string) error {
	if len(path) >= unix.PathMax {
		return refusal(name, unix.ENAMETOOLONG)
	}
	if !strings.HasPrefix(path, "/") {
		if dir, err := l.open(ctx, cwd); errors.Is(err, unix.ENOENT) {
			return nil // the guest makes it
		} else if err == nil {
			_ = dir.Close()
		}
		path = cwd + "/" + path
	}
	f, err := l.open(ctx, path)
	switch {
	case errors.Is(err, errGuestOnly), errors.Is(err, errTooFar):
		return nil
	case err != nil:
		return refusal(name, err)
	}
	defer func() { _ = f.Close() }()
	why, err := l.why(ctx, f)
	switch {
	case err != nil:
		return fmt.Errorf("look for program %q: %w", name, err)
	case why != "":
		return client.CannotRun(exitNotExecutable, fmt.Errorf("exec: %q: %s", name, why))
	}
	return nil
}

// refusal is the error of a program that cannot be opened.
func refusal(name string, err error) error {
	var status uint8
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		status = exitNotFound
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG):
		status = exitNotExecutable
	default:
		return fmt.Errorf("look for program %q: %w", name, err)
	}
	return client.CannotRun(status, fmt.Errorf("exec: %q: stat %s: %s", name, name, err.Error()))
}

// why is empty for a file that can be run.
func (l *lookup) why(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "is a directory, or no regular file", nil
	case info.Mode()&0o111 == 0:
		return "permission denied", nil
	}
	interpreter, err := interpreterOf(f)
	if err != nil || !filepath.IsAbs(interpreter) {
		return "", err
	}
	found, err := l.open(ctx, interpreter)
	if errors.Is(err, unix.ENOENT) {
		return "its interpreter " + interpreter + ": no such file or directory", nil
	}
	if err == nil {
		_ = found.Close()
	}
	return "", nil // the guest's kernel says what else there is
}

// maxInterpreter is how much of a script the kernel looks at, in bytes.
const maxInterpreter = 256

// interpreterOf returns the interpreter of a script, and nothing for another program. f is a path to a
// regular file.
func interpreterOf(f *os.File) (string, error) {
	program, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }()
	line, err := bufio.NewReader(io.LimitReader(program, maxInterpreter)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	rest, ok := strings.CutPrefix(line, "#!")
	if fields := strings.Fields(rest); ok && len(fields) > 0 {
		return fields[0], nil
	}
	return "", nil
}
