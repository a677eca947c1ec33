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
		_, err := l.judge(ctx, name, p.Cwd, name)
		return err
	}
	dirs, ok := searchPath(p.Env)
	if !ok {
		return nil // the guest has a path of its own
	}
	last := client.CannotRun(exitNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", name))
	for _, dir := range dirs {
		if dir == "" {
			dir = "."
		}
		found, err := l.judge(ctx, name, p.Cwd, dir+"/"+name)
		if _, refused := client.ExitStatus(err); !refused {
			return err
		}
		if found {
			last = err
		}
	}
	return last
}

func searchPath(env []string) (dirs []string, ok bool) {
	for _, e := range env {
		if path, found := strings.CutPrefix(e, "PATH="); found {
			dirs, ok = filepath.SplitList(path), true
		}
	}
	return dirs, ok
}

// judge refuses the program called name at a path, which begins at cwd when it is not absolute. It is found
// when only its interpreter is amiss.
func (l *lookup) judge(ctx context.Context, name, cwd, path string) (found bool, err error) {
	if len(path) >= unix.PathMax {
		return false, refusal(name, unix.ENAMETOOLONG)
	}
	full := path
	if !strings.HasPrefix(path, "/") {
		if dir, err := l.open(ctx, cwd); errors.Is(err, unix.ENOENT) {
			return false, nil // the guest makes it
		} else if err == nil {
			_ = dir.Close()
		}
		full = cwd + "/" + path
	}
	f, err := l.open(ctx, full)
	switch {
	case errors.Is(err, errGuestOnly), errors.Is(err, errTooFar):
		return false, nil
	case err != nil:
		return false, refusal(name, err)
	}
	defer func() { _ = f.Close() }()
	if err := runnable(f); err != nil {
		return false, refusal(name, err)
	}
	return true, l.interpret(ctx, name, path, f)
}

// refusal is the error of a program that cannot be opened, or is none.
func refusal(name string, err error) error {
	status, words := uint8(exitNotExecutable), "stat "+name+": "+err.Error()
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		status = exitNotFound
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EACCES):
		words = err.Error()
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG):
	default:
		return fmt.Errorf("look for program %q: %w", name, err)
	}
	return client.CannotRun(status, fmt.Errorf("exec: %q: %s", name, words))
}

// runnable is an error for what is no program.
func runnable(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return unix.EISDIR
	case !info.Mode().IsRegular(), info.Mode()&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// interpret refuses a script that the kernel finds no interpreter for. Runc starts such a process, which says
// the same and ends; an original guest would end without a word.
func (l *lookup) interpret(ctx context.Context, name, path string, f *os.File) error {
	interpreter, err := interpreterOf(f)
	if err != nil {
		return fmt.Errorf("look for program %q: %w", name, err)
	}
	if !filepath.IsAbs(interpreter) {
		return nil
	}
	program, err := l.open(ctx, interpreter)
	if err == nil {
		err = runnable(program)
		_ = program.Close()
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return client.CannotRun(exitNotFound, fmt.Errorf("exec %s: %s (interpreter %s)", path, unix.ENOENT.Error(), interpreter))
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EISDIR):
		return client.CannotRun(exitNotExecutable, fmt.Errorf("exec %s: %s (interpreter %s)", path, unix.EACCES.Error(), interpreter))
	}
	return nil // the guest's kernel says what else there is
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
