package ociruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Program is what a process executes.
type Program struct {
	Args []string `json:"args"` // at least one
	Env  []string `json:"env"`
	Cwd  string   `json:"cwd"`
}

// headSize is how much of a program is looked at; the kernel does not look at
// more of it to tell what it is.
const headSize = 256

// checkProgram refuses a program that the kernel will not execute. The OCI
// runtime finds out only when the container is started, and then all that is
// left to it is to end with status 1. pid is that of a process whose files are
// the container's. What cannot be judged is accepted.
func checkProgram(pid int, p Program) error {
	root := fmt.Sprintf("/proc/%d/root", pid)
	for _, name := range p.candidates() {
		head, err := readHead(root, name)
		if err != nil {
			continue // the next directory, or the runtime has a better word for it
		}
		err = checkHead(head, otherFormats, func(interpreter string) error {
			f, err := OpenInRoot(root, interpreter, os.O_RDONLY)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return fmt.Errorf("exec %s: %w", p.Args[0], err)
		}
		return nil
	}
	return nil
}

// candidates are the paths at which the program may be.
func (p Program) candidates() []string {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join("/", p.Cwd, name)
		}
		return []string{name}
	}
	var paths []string
	for _, env := range p.Env {
		if list, ok := strings.CutPrefix(env, "PATH="); ok {
			for dir := range strings.SplitSeq(list, ":") {
				if !path.IsAbs(dir) {
					dir = path.Join("/", p.Cwd, dir)
				}
				paths = append(paths, path.Join(dir, name))
			}
		}
	}
	return paths
}

var errNotProgram = errors.New("not an executable file")

// readHead returns the beginning of an executable file.
func readHead(root, name string) ([]byte, error) {
	f, err := OpenInRoot(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return nil, errNotProgram
	}
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return head[:n], nil
}

// checkHead judges a program by its first bytes. others reports whether there
// are more formats than the usual two, find looks for a script's interpreter.
func checkHead(head []byte, others func() bool, find func(string) error) error {
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return checkMachine(head, others)
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte("\n"))
		// Only these two separate words: a script with the line ends of another
		// system asks for an interpreter that ends with a carriage return.
		words := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(words) == 0 {
			return notExecutable("the script names no interpreter")
		}
		if cut := len(line) == headSize-2; cut || !path.IsAbs(words[0]) {
			return nil
		}
		if err := find(words[0]); errors.Is(err, os.ErrNotExist) {
			return cannotRun(exitNotFound, fmt.Errorf("no such file or directory: the script's interpreter %q does not exist", words[0]))
		}
		return nil
	case others():
		return nil
	}
	return notExecutable("neither an ELF program nor a script that begins with #!")
}

// machines are the ELF machines that a guest of an architecture may execute.
var machines = map[string][]uint16{
	"amd64": {62 /* EM_X86_64 */, 3 /* EM_386 */},
	"arm64": {183 /* EM_AARCH64 */, 40 /* EM_ARM */},
}

func checkMachine(head []byte, others func() bool) error {
	const machineAt = 18 // e_machine of both sizes
	native, known := machines[runtime.GOARCH]
	if !known || len(head) < machineAt+2 || others() {
		return nil
	}
	// Programs of the other byte order do not match either.
	machine := binary.LittleEndian.Uint16(head[machineAt:])
	if slices.Contains(native, machine) {
		return nil
	}
	return notExecutable(fmt.Sprintf("the program is for another processor (ELF machine %d), this one is %s", machine, runtime.GOARCH))
}

func notExecutable(why string) error {
	return cannotRun(exitNotExecutable, errors.New("exec format error: "+why))
}

func cannotRun(exit uint8, err error) error {
	return &hyperstart.GuestError{Class: hyperstart.ClassInvalidArgument, ExitStatus: exit, Err: err}
}

// otherFormats reports whether the kernel can be taught to execute others.
func otherFormats() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err != nil || strings.Contains(string(b), "binfmt_misc")
}
